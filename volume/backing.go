package volume

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"
)

// Backing is every system call that a volume makes on its backing directory.
// It is the seam at which tests count, record and break them; production uses
// the system itself. Names are single components below dirfd (or "" for dirfd
// itself where noted), never paths. Errors are plain unix.Errno values.
type Backing interface {
	Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error)
	Close(fd int) error
	// Statx fills st with the basic fields and the birth time. name may be
	// "": then it is dirfd's own status. Symbolic links are not followed.
	Statx(dirfd int, name string, st *unix.Statx_t) error
	Statfs(fd int, st *unix.Statfs_t) error

	Pread(fd int, b []byte, cipherOff int64) (int, error)
	Pwrite(fd int, b []byte, cipherOff int64) (int, error)
	Ftruncate(fd int, cipherSize int64) error
	Fallocate(fd int, mode uint32, cipherOff, length int64) error
	Seek(fd int, off int64, whence int) (int64, error)
	Fsync(fd int) error
	Fdatasync(fd int) error
	Syncfs(fd int) error

	Getdents(fd int, buf []byte) (int, error)
	Mkdirat(dirfd int, name string, mode uint32) error
	Mknodat(dirfd int, name string, mode uint32, dev int) error
	Symlinkat(target string, dirfd int, name string) error
	Readlinkat(dirfd int, name string, buf []byte) (int, error)
	Linkat(olddir int, oldname string, newdir int, newname string) error
	// LinkDescriptor names the file open as fd, which has no name yet.
	LinkDescriptor(fd, newdir int, newname string) error
	Unlinkat(dirfd int, name string, flags int) error
	Renameat2(olddir int, oldname string, newdir int, newname string, flags uint) error

	// Extended attributes of the inode that is open as fd, O_PATH or not.
	Fgetxattr(fd int, name string, b []byte) (int, error)
	Flistxattr(fd int, b []byte) (int, error)
	Fsetxattr(fd int, name string, value []byte, flags int) error
	Fremovexattr(fd int, name string) error

	// The three below take name "" for dirfd itself.
	Fchmodat(dirfd int, name string, mode uint32) error
	Fchownat(dirfd int, name string, uid, gid int) error
	Utimensat(dirfd int, name string, times *[2]unix.Timespec) error
}

// System is the Backing of production: the kernel. A volume asks it through
// patient.
type System struct{}

var _ Backing = System{}

// Openat opens name below dirfd; O_NOFOLLOW, O_CLOEXEC and O_NOCTTY are always added.
func (System) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	return unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY, mode)
}

func (System) Close(fd int) error { return unix.Close(fd) }

func (System) Statx(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return unix.Statx(dirfd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, st)
}

func (System) Statfs(fd int, st *unix.Statfs_t) error {
	return unix.Fstatfs(fd, st)
}

func (System) Pread(fd int, b []byte, off int64) (int, error)  { return unix.Pread(fd, b, off) }
func (System) Pwrite(fd int, b []byte, off int64) (int, error) { return unix.Pwrite(fd, b, off) }

func (System) Ftruncate(fd int, size int64) error {
	return unix.Ftruncate(fd, size)
}

func (System) Fallocate(fd int, mode uint32, off, length int64) error {
	return unix.Fallocate(fd, mode, off, length)
}

func (System) Seek(fd int, off int64, whence int) (int64, error) { return unix.Seek(fd, off, whence) }

func (System) Fsync(fd int) error     { return unix.Fsync(fd) }
func (System) Fdatasync(fd int) error { return unix.Fdatasync(fd) }
func (System) Syncfs(fd int) error    { return unix.Syncfs(fd) }

func (System) Getdents(fd int, buf []byte) (int, error) { return unix.Getdents(fd, buf) }

func (System) Mkdirat(dirfd int, name string, mode uint32) error {
	return unix.Mkdirat(dirfd, name, mode)
}

func (System) Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return unix.Mknodat(dirfd, name, mode, dev)
}

func (System) Symlinkat(target string, dirfd int, name string) error {
	return unix.Symlinkat(target, dirfd, name)
}

func (System) Readlinkat(dirfd int, name string, buf []byte) (int, error) {
	return unix.Readlinkat(dirfd, name, buf)
}

func (System) Linkat(olddir int, oldname string, newdir int, newname string) error {
	return unix.Linkat(olddir, oldname, newdir, newname, 0)
}

func (System) LinkDescriptor(fd, newdir int, newname string) error {
	return unix.Linkat(unix.AT_FDCWD, procDescriptor(fd), newdir, newname, unix.AT_SYMLINK_FOLLOW)
}

func (System) Unlinkat(dirfd int, name string, flags int) error {
	return unix.Unlinkat(dirfd, name, flags)
}

func (System) Renameat2(olddir int, oldname string, newdir int, newname string, flags uint) error {
	return unix.Renameat2(olddir, oldname, newdir, newname, flags)
}

// Fchmodat never follows a symbolic link: fchmodat2 where the kernel has it
// (6.6), else through an O_PATH descriptor.
func (s System) Fchmodat(dirfd int, name string, mode uint32) error {
	if name == "" {
		return chmodDescriptor(dirfd, mode)
	}
	err := unix.Fchmodat(dirfd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS {
		return err
	}
	fd, err := s.Openat(dirfd, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return chmodDescriptor(fd, mode)
}

func (System) Fchownat(dirfd int, name string, uid, gid int) error {
	return unix.Fchownat(dirfd, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

func (System) Utimensat(dirfd int, name string, times *[2]unix.Timespec) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	return unix.UtimesNanoAt(dirfd, name, times[:], flags)
}

// chmodDescriptor changes the mode of an open descriptor, O_PATH ones included,
// which fchmod(2) refuses. The magic link leads to the very file that is open.
func chmodDescriptor(fd int, mode uint32) error {
	err := unix.Fchmod(fd, mode)
	if err != unix.EBADF {
		return err
	}
	return unix.Fchmodat(unix.AT_FDCWD, procDescriptor(fd), mode, 0)
}

// preadFull reads until b is full or the file ends. It returns the bytes read;
// a short count means end of file, not an error.
func preadFull(k Backing, fd int, b []byte, cipherOff int64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := k.Pread(fd, b[n:], cipherOff+int64(n))
		if err != nil {
			return n, err
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

// pwriteFull writes all of b or returns how much was written and why not more.
func pwriteFull(k Backing, fd int, b []byte, cipherOff int64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := k.Pwrite(fd, b[n:], cipherOff+int64(n))
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
		n += m
	}
	return n, nil
}

// readSmall reads a whole file of at most limit bytes below dirfd. A longer one
// is errTooLong, so that nothing planted can make us read without end, and what
// is none is errNotPlain.
func readSmall(k Backing, dirfd int, name string, limit int) ([]byte, error) {
	fd, size, err := openPlainSized(k, dirfd, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer k.Close(fd)
	// What is longer by now is another file under that name.
	b := make([]byte, min(int64(limit), size)+1)
	n, err := k.Pread(fd, b, 0)
	if err == nil && int64(n) != size {
		b = append(b, make([]byte, limit+1-len(b))...)
		var more int
		more, err = preadFull(k, fd, b[n:], int64(n))
		n += more
	}
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, errTooLong
	}
	return b[:n], nil
}

// writeNew makes a file that must not exist yet, with all of its content, and
// removes it again if that fails half-way.
func writeNew(k Backing, dirfd int, name string, mode uint32, b []byte) error {
	fd, err := k.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = pwriteFull(k, fd, b, 0)
	if cerr := k.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = k.Unlinkat(dirfd, name, 0)
	}
	return err
}

var errTooLong = errors.New("longer than anything kmsfs writes there")
