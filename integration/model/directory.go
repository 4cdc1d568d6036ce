package model

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Directory is a Target that is reached through the kernel: a directory of any
// mounted file system.
type Directory string

var _ Target = Directory("")

func (d Directory) at(path string) string { return filepath.Join(string(d), path) }

func (d Directory) Create(path string) error {
	fd, err := unix.Open(d.at(path), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func (d Directory) Mkdir(path string) error           { return unix.Mkdir(d.at(path), 0o755) }
func (d Directory) Symlink(target, path string) error { return unix.Symlink(target, d.at(path)) }
func (d Directory) Link(old, path string) error       { return unix.Link(d.at(old), d.at(path)) }
func (d Directory) Unlink(path string) error          { return unix.Unlink(d.at(path)) }
func (d Directory) Rmdir(path string) error           { return unix.Rmdir(d.at(path)) }
func (d Directory) Truncate(path string, size int64) error {
	return unix.Truncate(d.at(path), size)
}

func (d Directory) Fallocate(path string, mode uint32, off, length int64) error {
	fd, err := unix.Open(d.at(path), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fallocate(fd, mode, off, length)
}

func (d Directory) Seek(path string, off int64, whence int) (int64, error) {
	fd, err := unix.Open(d.at(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	return unix.Seek(fd, off, whence)
}

func (d Directory) Rename(old, path string, flags uint32) error {
	return unix.Renameat2(unix.AT_FDCWD, d.at(old), unix.AT_FDCWD, d.at(path), uint(flags))
}

func (d Directory) WriteAt(path string, data []byte, off int64) error {
	f, err := os.OpenFile(d.at(path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, off)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func (d Directory) ReadAt(path string, dest []byte, off int64) (int, error) {
	fd, err := unix.Open(d.at(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	n := 0
	for n < len(dest) {
		m, err := unix.Pread(fd, dest[n:], off+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

func (d Directory) Mkfifo(path string) error { return unix.Mkfifo(d.at(path), 0o644) }

func (d Directory) Chmod(path string, mode uint32) error { return unix.Chmod(d.at(path), mode) }

func (d Directory) Chown(path string, uid, gid uint32) error {
	return unix.Lchown(d.at(path), int(uid), int(gid))
}

func (d Directory) SetMtime(path string, mtime time.Time) error {
	return os.Chtimes(d.at(path), time.Time{}, mtime)
}

func (d Directory) Open(path string) (Handle, error) {
	f, err := os.OpenFile(d.at(path), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return openFile{f}, nil
}

func (d Directory) CreateTemp(dir string) (Handle, error) {
	fd, err := unix.Open(d.at(dir), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	return openFile{os.NewFile(uintptr(fd), "temporary file")}, nil
}

// openFile is a Handle.
type openFile struct{ *os.File }

func (f openFile) Link(dir Target, path string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, dir.(Directory).at(path), unix.AT_SYMLINK_FOLLOW)
}

func (d Directory) Setxattr(path, name string, value []byte, flags int) error {
	return unix.Setxattr(d.at(path), name, value, flags)
}

func (d Directory) Getxattr(path, name string) ([]byte, error) {
	b := make([]byte, 1<<16)
	n, err := unix.Getxattr(d.at(path), name, b)
	return b[:max(n, 0)], err
}

func (d Directory) Removexattr(path, name string) error { return unix.Removexattr(d.at(path), name) }

func (d Directory) Listxattr(path string) ([]string, error) {
	b := make([]byte, 1<<16)
	n, err := unix.Listxattr(d.at(path), b)
	return strings.FieldsFunc(string(b[:max(n, 0)]), func(r rune) bool { return r == 0 }), err
}

func (d Directory) Readlink(path string) (string, error) { return os.Readlink(d.at(path)) }

func (d Directory) List(path string) ([]string, error) {
	f, err := os.Open(d.at(path))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (d Directory) Stat(path string) (Stat, error) {
	var st unix.Stat_t
	err := unix.Lstat(d.at(path), &st)
	return Stat{
		Size: st.Size, Nlink: int(st.Nlink), Kind: st.Mode & unix.S_IFMT, Mode: st.Mode & 0o7777,
		UID: st.Uid, GID: st.Gid, Mtime: time.Unix(st.Mtim.Unix()),
	}, err
}
