package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// stamp tells one state of the keystore file from another without reading it.
// It is reliable because the file is only ever replaced and a snapshot keeps
// its file open, so that the inode number cannot come back.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func makeStamp(st *unix.Stat_t) stamp {
	return stamp{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}
}

// statFile returns the stamp of the file at path now: one system call.
func statFile(path string) (stamp, error) {
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Stat(path, &st) }); err != nil {
		return stamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return makeStamp(&st), nil
}

// readFile returns the bytes at path, the open file they are from, which the
// caller closes, and its stamp. What it returns is durable: a key is not to be
// used while a power cut could still take back the rename that brought it.
func readFile(path string) (b []byte, f *os.File, s stamp, err error) {
	f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, stamp{}, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	var st unix.Stat_t
	if err := ignoringEINTR(func() error { return unix.Fstat(int(f.Fd()), &st) }); err != nil {
		return nil, nil, stamp{}, &fs.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxDocument {
		return nil, nil, stamp{}, fmt.Errorf("read keystore: no regular file, or over %d bytes: %w", maxDocument, ErrDamaged)
	}
	if b, err = io.ReadAll(io.LimitReader(f, maxDocument+1)); err != nil {
		return nil, nil, stamp{}, err
	}
	if err := syncDir(filepath.Dir(path)); err != nil && !readOnly(err) {
		return nil, nil, stamp{}, err
	}
	return b, f, makeStamp(&st), nil
}

// replaceFile puts b in the place of path, durably: after a crash at any
// moment the old bytes or the new ones are there. The caller holds the lock,
// so the temporary's name is its own; one left by a crash is removed. The new
// file has mode 0600 and, where there is an old one, its owner. Commit is called
// when all that can fail is done but the rename; nil: nothing.
func replaceFile(path string, b []byte, commit func() error) (err error) {
	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(temporary)
		}
	}()
	if err := keepOwner(f, path); err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if commit != nil {
		if err := commit(); err != nil {
			return err
		}
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// keepOwner gives f the owner of the file at path, so that a keystore that
// root changes stays its user's. Nothing to do where there is no such file.
func keepOwner(f *os.File, path string) error {
	var old, now unix.Stat_t
	if err := unix.Lstat(path, &old); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return &fs.PathError{Op: "fstat", Path: f.Name(), Err: err}
	}
	if old.Uid == now.Uid && old.Gid == now.Gid {
		return nil
	}
	return f.Chown(int(old.Uid), int(old.Gid))
}

// lockFile takes the exclusive lock that every change of the keystore at path
// is made under: flock on path.lock, which stays there. It waits until ctx
// ends. Other processes and other goroutines are kept out alike.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock keystore: %w", err)
	}
	// Only root can give its lock away, and only root has to.
	if err := keepOwner(f, path); err != nil && !errors.Is(err, fs.ErrPermission) {
		f.Close()
		return nil, fmt.Errorf("lock keystore: %w", err)
	}
	wait := time.Millisecond
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, &fs.PathError{Op: "flock", Path: name, Err: err}
		}
		select {
		case <-time.After(wait):
			wait = min(wait*2, 16*time.Millisecond)
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock keystore: another process holds %s: %w", name, ctx.Err())
		}
	}
}

// makeDirs makes dir and its missing parents, durably and with mode 0700.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDirs(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// readOnly tells whether err, of syncing a directory, means that there is
// nothing to sync: a read-only file system, or one that cannot do it, or a
// directory that may be searched and not read.
func readOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, fs.ErrPermission)
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
