package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	treeFiles = 8       // small files that are worked on at a time: most of the time goes to the KMS and to fsync
	largeFile = 4 << 20 // bytes; from here on a file has all processors, one file after the other
)

// treeRun is the work on a tree.
type treeRun struct {
	*envelopeRun
	in, out string
	files   []treeFile
	bytes   int64
	done    atomic.Int64 // of bytes

	large sync.Mutex // held for a large file
	mu    sync.Mutex // guards what follows
	tried int
	errs  int
	worst int // exit code
	stop  bool
}

// treeFile is a file by its path below the input.
type treeFile struct {
	rel  string
	size int64
}

// treeError is that files of a tree failed; what, has been said.
type treeError struct {
	text string
	code int
}

func (e *treeError) Error() string { return e.text }

// tree works on all files at and below the directory in. Every file is a message
// of its own, at the same place below out. Links to files are read as files,
// links to directories are not followed; what is neither is left.
func (r *envelopeRun) tree(ctx context.Context, in, out string) error {
	t := &treeRun{envelopeRun: r, in: in, out: out}
	if err := t.list(); err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(treeFiles)
	for _, f := range t.files {
		if ctx.Err() != nil || t.stopped() {
			break
		}
		if err := t.makeDir(filepath.Dir(f.rel)); err != nil {
			t.failed(err)
			continue
		}
		group.Go(func() error {
			t.file(ctx, f)
			return nil
		})
	}
	_ = group.Wait()
	r.progress.end()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return t.result()
}

// list finds the files before any is written, since out may be below in.
func (t *treeRun) list() error {
	outInfo, err := os.Stat(t.out)
	if err != nil {
		return fmt.Errorf("open output: %w", err)
	}
	return filepath.WalkDir(t.in, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			t.failed(fmt.Errorf("read %s: %w", path, err))
			return nil
		}
		info, err := os.Stat(path) // of what a link leads to
		switch {
		case err != nil:
			t.failed(fmt.Errorf("read %s: %w", path, err))
		case d.IsDir() && os.SameFile(info, outInfo):
			return fs.SkipDir
		case d.IsDir():
		case info.IsDir():
			say(t.stderr, "left: %s is a symbolic link to a directory", path)
		case !info.Mode().IsRegular():
			say(t.stderr, "left: %s is no file", path)
		default:
			rel, err := filepath.Rel(t.in, path)
			if err != nil {
				return err
			}
			t.files = append(t.files, treeFile{rel, info.Size()})
			t.bytes += info.Size()
		}
		return nil
	})
}

// makeDir makes the directory rel below out as it is below in, but writable.
func (t *treeRun) makeDir(rel string) error {
	dir := filepath.Join(t.out, rel)
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := t.makeDir(filepath.Dir(rel)); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(t.in, rel))
	if err == nil {
		err = os.Mkdir(dir, info.Mode().Perm()|0o700)
	}
	if err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	return nil
}

// file works on one file.
func (t *treeRun) file(ctx context.Context, f treeFile) {
	j := job{in: filepath.Join(t.in, f.rel), out: filepath.Join(t.out, f.rel) + t.suffix}
	j.workers = 1
	if f.size >= largeFile {
		t.large.Lock()
		defer t.large.Unlock()
		j.workers = 0
	}
	var before int64
	j.progress = func(now int64) {
		t.progress.update(t.done.Add(now-before), t.bytes)
		before = now
	}
	err := t.one(ctx, j)
	switch {
	case errors.Is(err, errKept):
		say(t.progress, "left: %s exists", j.out)
	case err != nil && ctx.Err() == nil:
		t.failed(err)
	}
	t.mu.Lock()
	t.tried++
	t.mu.Unlock()
}

// failed counts a file's error and says it.
func (t *treeRun) failed(err error) {
	code := exitCode(err)
	t.mu.Lock()
	t.errs++
	t.worst = max(t.worst, code)
	t.stop = t.stop || t.hopeless(code)
	t.mu.Unlock()
	if t.progress != nil {
		sayError(t.progress, err)
	}
}

// hopeless tells whether all other files would fail alike: in encryption they
// have the same keys.
func (t *treeRun) hopeless(code int) bool {
	if slices.Contains([]int{exitPassphrase, exitUnreachable}, code) {
		return true
	}
	return t.verb() == "encrypt" && slices.Contains([]int{exitUsage, exitDenied, exitKeyDisabled, exitThrottled}, code)
}

func (t *treeRun) stopped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.stop
}

// result sums up.
func (t *treeRun) result() error {
	if t.errs == 0 {
		return nil
	}
	text := fmt.Sprintf("%s: %s of %s files failed", t.verb(), count(int64(t.errs)), count(int64(len(t.files))))
	if left := len(t.files) - t.tried; left > 0 && t.stop {
		text += fmt.Sprintf("; %s more were not tried, since they would fail alike", count(int64(left)))
	}
	return &treeError{text, t.worst}
}
