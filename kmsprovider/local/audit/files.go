package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// headSuffix makes the head's path from the log's.
const headSuffix = ".head"

// lockWait is how long to wait for others, who hold the lock for the time of a
// write and at most a sync.
const lockWait = 10 * time.Second

// file is one of the two files.
type file struct {
	*os.File
	dev, ino uint64
}

// open opens one of the two files, made where it is missing. made is true then.
func open(path, ownerOf string) (_ *file, made bool, err error) {
	var f *os.File
	const flags = os.O_RDWR | unix.O_NOFOLLOW | unix.O_NONBLOCK
	for {
		f, err = os.OpenFile(path, flags, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		f, err = os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, fs.ErrExist) {
			made = err == nil
			break
		}
	}
	if err != nil {
		return nil, false, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("no regular file")}
	}
	if err == nil && made {
		err = giveTo(f, ownerOf)
	}
	if err != nil {
		f.Close()
		return nil, false, err
	}
	return &file{f, uint64(st.Dev), st.Ino}, made, nil
}

// giveTo gives f the owner of another file, so that what root makes beside a
// user's keystore is the user's.
func giveTo(f *os.File, ownerOf string) error {
	if ownerOf == "" || os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(ownerOf, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: ownerOf, Err: err}
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// lock takes the lock on the head, shared or exclusive.
func lock(f *os.File, how int) error {
	wait := time.Millisecond
	for deadline := time.Now().Add(lockWait); ; {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		if time.Now().After(deadline) {
			return &fs.PathError{Op: "flock", Path: f.Name(), Err: errors.New("another process has held the lock for too long")}
		}
		time.Sleep(wait)
		wait = min(wait*2, 16*time.Millisecond)
	}
}

func unlock(f *os.File) {
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
}

// still tells whether path still names the file; where it does, size is the
// file's. It is one system call.
func (f *file) still(path string) (same bool, size int64, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); errors.Is(err, fs.ErrNotExist) {
		return false, 0, nil
	} else if err != nil {
		return false, 0, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return uint64(st.Dev) == f.dev && st.Ino == f.ino, st.Size, nil
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func datasync(f *os.File) error {
	for {
		switch err := unix.Fdatasync(int(f.Fd())); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
	}
}

// bootID names the boot of the machine.
func bootID() (id [16]byte, err error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id, err
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(raw) != len(id) {
		return id, fmt.Errorf("read boot ID: %q is none", text)
	}
	return [16]byte(raw), nil
}
