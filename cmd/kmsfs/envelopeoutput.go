package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// outputFile is a file that appears under its name when it is whole, or never.
// Until then it has no name, so that nothing is left of it whatever ends the
// process; where the file system has no such files, it is a temporary one beside
// its place. Only its owner can read it before it is whole.
type outputFile struct {
	*os.File
	target string
	o      outputOptions

	mu   sync.Mutex // guards what follows: an interrupt discards it meanwhile
	temp string     // its name so far; empty: none
	done bool       // committed or discarded
}

type outputOptions struct {
	mode        fs.FileMode // of a new file; the mode of one that is replaced stays
	noOverwrite bool
}

// errKept is that a file exists, and is not to be overwritten.
var errKept = errors.New("it exists and is kept, as --no-overwrite demands")

// createOutput makes the file that is to have the name target, the path of a
// regular file or of nothing.
func createOutput(target string, o outputOptions) (*outputFile, error) {
	if _, err := os.Lstat(target); err == nil && o.noOverwrite {
		return nil, fmt.Errorf("%s: %w", target, errKept)
	}
	f := &outputFile{target: target, o: o}
	dir := filepath.Dir(target)
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	switch {
	case err == nil:
		f.File = os.NewFile(uintptr(fd), target)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		temp := f.tempName()
		if f.File, err = os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return nil, fmt.Errorf("create output: %w", err)
		}
		f.temp = temp
	default:
		return nil, fmt.Errorf("create output: %w", &fs.PathError{Op: "open", Path: dir, Err: err})
	}
	return f, nil
}

func (f *outputFile) tempName() string {
	return filepath.Join(filepath.Dir(f.target), ".kmsfs-"+rand.Text())
}

// commit makes the file durable and gives it its name.
func (f *outputFile) commit() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return errors.New("write output: interrupted")
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write output %s: %w", f.target, err)
		}
	}()
	if err := f.take(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.place(); err != nil {
		return err
	}
	f.done = true
	return errors.Join(f.Close(), syncDir(filepath.Dir(f.target)))
}

// take gives the file the mode that it is to have and, where it can, the owner
// of the file it replaces.
func (f *outputFile) take() error {
	var old unix.Stat_t
	if unix.Lstat(f.target, &old) != nil {
		return f.Chmod(f.o.mode)
	}
	var own unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &own); err != nil {
		return err
	}
	if own.Uid != old.Uid || own.Gid != old.Gid {
		_ = f.Chown(int(old.Uid), int(old.Gid)) // root can
	}
	return f.Chmod(fs.FileMode(old.Mode & 0o777))
}

// place gives the file its name.
func (f *outputFile) place() error {
	if f.temp == "" {
		err := f.link(f.target)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EEXIST):
			return err
		case f.o.noOverwrite:
			return errKept
		}
		// Only a rename replaces, and that takes a name.
		temp := f.tempName()
		if err := f.link(temp); err != nil {
			return err
		}
		f.temp = temp
	}
	if !f.o.noOverwrite {
		return os.Rename(f.temp, f.target)
	}
	err := unix.Renameat2(unix.AT_FDCWD, f.temp, unix.AT_FDCWD, f.target, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		if err = os.Link(f.temp, f.target); err == nil {
			_ = os.Remove(f.temp)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return errKept
	}
	return err
}

// link gives a file that has no name this one.
func (f *outputFile) link(path string) error {
	from := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
}

// discard removes the file, unless it was committed.
func (f *outputFile) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return
	}
	f.done = true
	_ = f.Close()
	if f.temp != "" {
		_ = os.Remove(f.temp)
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // one that may be written but not read
	}
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	// Some file systems cannot, and say so.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
