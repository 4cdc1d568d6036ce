package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// checkMountpoint returns the real path of a directory that can be mounted on.
func checkMountpoint(path string, nonEmpty bool) (string, error) {
	real, err := resolveMountpoint(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", withHint(mountpointf("mount point %s does not exist", path), "make it: mkdir %s", path)
	}
	if err != nil {
		return "", mountpointf("mount point %s: %w", path, err)
	}
	if m, ok, err := findMount(real); err != nil {
		return "", err
	} else if ok && m.fsType == fsType {
		return "", withHint(mountpointf("mount point %s is a kmsfs mount already, of %s", real, m.source), "unmount it first: kmsfs unmount %s", real)
	}
	dir, err := os.Open(real)
	if err != nil {
		return "", mountpointf("mount point: %w", err)
	}
	defer dir.Close()
	if st, err := dir.Stat(); err != nil {
		return "", mountpointf("mount point: %w", err)
	} else if !st.IsDir() {
		return "", mountpointf("mount point %s is not a directory", real)
	}
	if _, err := dir.Readdirnames(1); err != io.EOF && !nonEmpty {
		if err != nil {
			return "", mountpointf("mount point: %w", err)
		}
		return "", withHint(mountpointf("mount point %s is not empty", real), "what is in it would be hidden; if that is meant: -o nonempty")
	}
	return real, nil
}

// resolveMountpoint makes path absolute and free of symbolic links, also where
// the process that served a mount there is gone.
func resolveMountpoint(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EACCES) {
		// The mount point itself does not answer, or not to us.
		if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			return filepath.Join(parent, filepath.Base(abs)), nil
		}
	}
	return real, err
}

// findBacking returns the real path of a backing directory.
func findBacking(path string) (string, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", noVolumef("backing directory %s does not exist", path)
	}
	if err != nil {
		return "", fmt.Errorf("backing directory: %w", err)
	}
	if !st.IsDir() {
		return "", noVolumef("backing directory %s is not a directory", path)
	}
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("backing directory: %w", err)
	}
	return abs, nil
}

// isInside tells whether path, a real one, is dir or below it, also where
// another mount shows dir there.
func isInside(dir, path string) (bool, error) {
	want, err := os.Stat(dir)
	if err != nil {
		return false, fmt.Errorf("backing directory: %w", err)
	}
	for {
		st, err := os.Stat(path)
		if err != nil {
			return false, mountpointf("mount point: %w", err)
		}
		if os.SameFile(want, st) {
			return true, nil
		}
		if path == "/" {
			return false, nil
		}
		path = filepath.Dir(path)
	}
}
