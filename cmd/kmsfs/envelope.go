package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// withEnvelope does what encrypt and decrypt share: it finds out what is to be
// read and written, opens keys, and has the codec that bind makes of them work
// on the file, or on each file of the tree.
func (a *app) withEnvelope(ctx context.Context, f envelopeFlags, mode string, bind func(envelope.Keyring) codec) (err error) {
	if err := errors.Join(f.check(), f.resolve(mode)); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	r := &envelopeRun{app: a, mode: mode, suffix: f.suffix, noOverwrite: f.noOverwrite, umask: umask()}
	if f.suffix == suffixOfMode {
		r.suffix = "." + r.verb() + "ed"
	}
	tree, out, err := r.plan(f)
	if err != nil {
		return err
	}
	if err := checkMetadata(f.metadata, f.input, out); err != nil {
		return err
	}
	// Who prints the passphrase does not get the data to encrypt as its input.
	keyed := *a
	if f.input == standardStream {
		keyed.stdin = nil
	}
	ring, registry, err := keyed.keyring(ctx, f.keyringFlags, mode == "encrypt")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	r.codec = bind(ring)
	if r.metadata, err = a.openMetadata(f); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.metadata.finish()) }()
	r.progress = a.newProgress(r.verb(), byteSize)
	defer r.progress.end()
	// A terminal that goes away is an interrupt too.
	if !signal.Ignored(unix.SIGHUP) {
		var stop func()
		ctx, stop = signal.NotifyContext(ctx, unix.SIGHUP)
		defer stop()
	}
	if tree {
		return r.tree(ctx, f.input, out)
	}
	return r.one(ctx, job{in: f.input, out: out})
}

// plan tells whether the input is a tree, and what to write to.
func (r *envelopeRun) plan(f envelopeFlags) (tree bool, out string, err error) {
	if err := r.refuseTerminal(f.output); err != nil {
		return false, "", err
	}
	isDir := func(path string) bool {
		info, err := os.Stat(path)
		return path != standardStream && err == nil && info.IsDir()
	}
	if f.input == standardStream {
		if isDir(f.output) {
			return false, "", usagef("output %s is a directory: name a file for what standard input gives", f.output)
		}
		return false, f.output, nil
	}
	info, err := os.Stat(f.input)
	switch {
	case err != nil:
		return false, "", fmt.Errorf("open input: %w", err)
	case !info.IsDir() && isDir(f.output):
		return false, filepath.Join(f.output, filepath.Base(f.input)+r.suffix), nil
	case !info.IsDir():
		return false, f.output, nil
	case !f.recursive:
		return false, "", withHint(usagef("input %s is a directory", f.input), "take all files in it and below it with --recursive")
	case f.output == standardStream:
		return false, "", usagef("a directory is the input: name the one to write to with --output")
	}
	return true, f.output, r.prepareTree(f.input, f.output)
}

// prepareTree makes the directory that a tree is written to, if it is missing.
func (r *envelopeRun) prepareTree(in, out string) error {
	if err := os.Mkdir(out, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make output directory: %w", err)
	}
	from, err := os.Stat(in)
	if err != nil {
		return fmt.Errorf("open input: %w", err)
	}
	to, err := os.Stat(out)
	switch {
	case err != nil:
		return fmt.Errorf("open output: %w", err)
	case !to.IsDir():
		return usagef("input %s is a directory, output %s is none", in, out)
	case os.SameFile(from, to):
		return usagef("input and output are the same directory, %s", in)
	}
	return nil
}

// checkMetadata keeps metadata out of what is read and written.
func checkMetadata(path, in, out string) error {
	if path == "" || path == standardStream {
		return nil
	}
	metadata := realPath(path)
	for what, other := range map[string]string{"input": in, "output": out} {
		if other == standardStream {
			continue
		}
		if real := realPath(other); metadata == real || strings.HasPrefix(metadata, strings.TrimSuffix(real, "/")+"/") {
			return usagef("--metadata-output %s is, or is in, the %s", path, what)
		}
	}
	return nil
}

// realPath is path without links, as far as it exists.
func realPath(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(real, filepath.Base(path))
	}
	return path
}

// umask is the process's. To read it is to set it, so this comes before
// anything that makes files.
func umask() fs.FileMode {
	mask := unix.Umask(0o077)
	unix.Umask(mask)
	return fs.FileMode(mask)
}
