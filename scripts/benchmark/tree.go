package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

var (
	tree       = &preparation{name: "tree", fill: extract}
	treeToLose = &preparation{name: "tree-to-lose", fill: extract, usedUp: true}

	untar = workload{
		name: "untar", what: "tar x of the source tree into an empty volume", kind: mounts,
		run: extract,
	}
	tarc = workload{
		name: "tarc", what: "tar c of the source tree, cold: mounted anew", kind: mounts, on: tree,
		run: archive,
	}
	find = workload{
		name: "find", what: "find -size over the source tree, cold", kind: mounts, on: tree,
		run: findBySize,
	}
	git = workload{
		name: "git", what: "git init, add, commit and status of the source tree, cold at first", kind: mounts, on: treeToLose,
		run: commit,
	}
	remove = workload{
		name: "rm", what: "rm -rf of the source tree, cold at first", kind: mounts, on: treeToLose,
		run: func(ctx context.Context, _ input, at mount) error {
			return command(ctx, nil, "rm", "-rf", sourceDir(at))
		},
	}
)

// sourceDir is where the tree is unpacked.
func sourceDir(at mount) string { return filepath.Join(at.dir(), "src") }

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
	if err := os.Mkdir(sourceDir(at), 0o755); err != nil {
		return err
	}
	return command(ctx, nil, "tar", "-C", sourceDir(at), "-xf", in.tar)
}

// findBySize looks at every file and matches none.
func findBySize(ctx context.Context, _ input, at mount) error {
	var found byteCount
	if err := command(ctx, &found, "find", sourceDir(at), "-type", "f", "-size", "+100G"); err != nil {
		return err
	}
	if found != 0 {
		return errors.New("find has found files of more than 100 GiB")
	}
	return nil
}

func commit(ctx context.Context, _ input, at mount) error {
	for _, args := range [][]string{
		{"init", "-q"}, {"add", "-A"}, {"commit", "-q", "-m", "all"}, {"status", "--porcelain"},
	} {
		var out byteCount
		args = append([]string{"-C", sourceDir(at), "-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "gc.auto=0"}, args...)
		if err := command(ctx, &out, "git", args...); err != nil {
			return err
		}
		if out != 0 {
			return fmt.Errorf("git %v has something to say", args)
		}
	}
	return nil
}

// archive reads all into a pipe: tar reads nothing if it writes to /dev/null.
func archive(ctx context.Context, in input, at mount) error {
	var n byteCount
	if err := command(ctx, &n, "tar", "-C", sourceDir(at), "-cf", "-", "."); err != nil {
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
