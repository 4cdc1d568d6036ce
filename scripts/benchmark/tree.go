package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

var untar = workload{
	name: "untar", what: "tar xf of the source tree into an empty volume",
	kind: mounts, run: extract,
}

var tarc = workload{
	name: "tarc", what: "tar c of the source tree, cold: mounted anew",
	kind: mounts, prepare: extract, run: archive,
}

// treeSize is how much there is in a tree.
type treeSize struct {
	Files int   `json:"files"`
	Dirs  int   `json:"directories"`
	Bytes int64 `json:"bytes"`
}

// pack writes an archive of the tree at dir.
func pack(ctx context.Context, dir, archive string) (size treeSize, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			size.Dirs++
			return nil
		}
		info, err := e.Info()
		if err == nil && e.Type().IsRegular() {
			size.Files++
			size.Bytes += info.Size()
		}
		return err
	})
	if err != nil {
		return size, fmt.Errorf("look at tree: %w", err)
	}
	return size, command(ctx, nil, "tar", "-C", dir, "-cf", archive, ".")
}

func extract(ctx context.Context, in input, at mount) error {
	return command(ctx, nil, "tar", "-C", at.dir(), "-xf", in.tar)
}

// archive reads all into a pipe: tar reads nothing if it writes to /dev/null.
func archive(ctx context.Context, in input, at mount) error {
	var n byteCount
	if err := command(ctx, &n, "tar", "-C", at.dir(), "-cf", "-", "."); err != nil {
		return err
	}
	if int64(n) < in.tree.Bytes {
		return fmt.Errorf("tar wrote %d bytes, less than the files have", n)
	}
	return nil
}

type byteCount int64

func (n *byteCount) Write(b []byte) (int, error) {
	*n += byteCount(len(b))
	return len(b), nil
}

func command(ctx context.Context, stdout io.Writer, name string, args ...string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = stdout, os.Stderr
	if err := c.Run(); err != nil {
		return fmt.Errorf("run %s %v: %w", name, args, err)
	}
	return nil
}
