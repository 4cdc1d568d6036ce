package volume

import (
	"sync"

	"golang.org/x/sys/unix"
)

// call is one call on the backing directory.
type call struct {
	op, name string
	changes  bool  // what outlives the process
	bytes    int   // of a read or write
	off      int64 // likewise
}

// tap is a Backing that hands every call to a test, which decides whether it is
// made and what it answers. do makes the call, of a read or write the first n
// bytes of it.
type tap struct {
	Backing
	mu      sync.Mutex // of through, once the tap is in use
	through func(c call, do func(n int) error) error
}

// turn has another through decide from now on.
func (t *tap) turn(through func(c call, do func(n int) error) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.through = through
}

func (t *tap) ask(c call, do func(n int) error) error {
	if c.name == configName { // a mount looks at it now and then
		return do(c.bytes)
	}
	t.mu.Lock()
	through := t.through
	t.mu.Unlock()
	return through(c, do)
}

func (t *tap) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	fd = -1
	c := call{op: "openat", name: name, changes: flags&(unix.O_CREAT|unix.O_TRUNC) != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE}
	err = t.ask(c, func(int) (e error) { fd, e = t.Backing.Openat(dirfd, name, flags, mode); return e })
	if err != nil && fd >= 0 {
		_ = t.Backing.Close(fd)
		fd = -1
	}
	return fd, err
}

func (t *tap) Close(fd int) error {
	return t.ask(call{op: "close"}, func(int) error { return t.Backing.Close(fd) })
}

func (t *tap) Statx(dirfd int, name string, st *unix.Statx_t) error {
	return t.ask(call{op: "statx", name: name}, func(int) error { return t.Backing.Statx(dirfd, name, st) })
}

func (t *tap) Statfs(fd int, st *unix.Statfs_t) error {
	return t.ask(call{op: "statfs"}, func(int) error { return t.Backing.Statfs(fd, st) })
}

func (t *tap) Pread(fd int, b []byte, off int64) (n int, err error) {
	err = t.ask(call{op: "pread", bytes: len(b), off: off}, func(part int) (e error) {
		n, e = t.Backing.Pread(fd, b[:part], off)
		return e
	})
	return n, err
}

func (t *tap) Pwrite(fd int, b []byte, off int64) (n int, err error) {
	err = t.ask(call{op: "pwrite", bytes: len(b), off: off, changes: true}, func(part int) (e error) {
		n, e = t.Backing.Pwrite(fd, b[:part], off)
		return e
	})
	return n, err
}

func (t *tap) Ftruncate(fd int, size int64) error {
	return t.ask(call{op: "ftruncate", changes: true}, func(int) error { return t.Backing.Ftruncate(fd, size) })
}

func (t *tap) Fallocate(fd int, mode uint32, off, length int64) error {
	return t.ask(call{op: "fallocate", changes: true}, func(int) error { return t.Backing.Fallocate(fd, mode, off, length) })
}

func (t *tap) Seek(fd int, off int64, whence int) (at int64, err error) {
	err = t.ask(call{op: "seek"}, func(int) (e error) { at, e = t.Backing.Seek(fd, off, whence); return e })
	return at, err
}

func (t *tap) Fsync(fd int) error {
	return t.ask(call{op: "fsync"}, func(int) error { return t.Backing.Fsync(fd) })
}

func (t *tap) Fdatasync(fd int) error {
	return t.ask(call{op: "fdatasync"}, func(int) error { return t.Backing.Fdatasync(fd) })
}

func (t *tap) Syncfs(fd int) error {
	return t.ask(call{op: "syncfs"}, func(int) error { return t.Backing.Syncfs(fd) })
}

func (t *tap) Getdents(fd int, buf []byte) (n int, err error) {
	err = t.ask(call{op: "getdents"}, func(int) (e error) { n, e = t.Backing.Getdents(fd, buf); return e })
	return n, err
}

func (t *tap) Mkdirat(dirfd int, name string, mode uint32) error {
	return t.ask(call{op: "mkdirat", name: name, changes: true}, func(int) error { return t.Backing.Mkdirat(dirfd, name, mode) })
}

func (t *tap) Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return t.ask(call{op: "mknodat", name: name, changes: true}, func(int) error { return t.Backing.Mknodat(dirfd, name, mode, dev) })
}

func (t *tap) Symlinkat(target string, dirfd int, name string) error {
	return t.ask(call{op: "symlinkat", name: name, changes: true}, func(int) error { return t.Backing.Symlinkat(target, dirfd, name) })
}

func (t *tap) Readlinkat(dirfd int, name string, buf []byte) (n int, err error) {
	n = -1
	err = t.ask(call{op: "readlinkat", name: name}, func(int) (e error) { n, e = t.Backing.Readlinkat(dirfd, name, buf); return e })
	return n, err
}

func (t *tap) Linkat(od int, on string, nd int, nn string) error {
	return t.ask(call{op: "linkat", name: nn, changes: true}, func(int) error { return t.Backing.Linkat(od, on, nd, nn) })
}

func (t *tap) LinkDescriptor(fd, nd int, nn string) error {
	return t.ask(call{op: "linkdescriptor", name: nn, changes: true}, func(int) error { return t.Backing.LinkDescriptor(fd, nd, nn) })
}

func (t *tap) Unlinkat(dirfd int, name string, flags int) error {
	return t.ask(call{op: "unlinkat", name: name, changes: true}, func(int) error { return t.Backing.Unlinkat(dirfd, name, flags) })
}

func (t *tap) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	return t.ask(call{op: "renameat2", name: on, changes: true}, func(int) error { return t.Backing.Renameat2(od, on, nd, nn, flags) })
}

func (t *tap) Fgetxattr(fd int, name string, b []byte) (n int, err error) {
	n = -1
	err = t.ask(call{op: "fgetxattr", name: name}, func(int) (e error) { n, e = t.Backing.Fgetxattr(fd, name, b); return e })
	return n, err
}

func (t *tap) Flistxattr(fd int, b []byte) (n int, err error) {
	n = -1
	err = t.ask(call{op: "flistxattr"}, func(int) (e error) { n, e = t.Backing.Flistxattr(fd, b); return e })
	return n, err
}

func (t *tap) Fsetxattr(fd int, name string, value []byte, flags int) error {
	return t.ask(call{op: "fsetxattr", name: name, changes: true}, func(int) error { return t.Backing.Fsetxattr(fd, name, value, flags) })
}

func (t *tap) Fremovexattr(fd int, name string) error {
	return t.ask(call{op: "fremovexattr", name: name, changes: true}, func(int) error { return t.Backing.Fremovexattr(fd, name) })
}

func (t *tap) Fchmodat(dirfd int, name string, mode uint32) error {
	return t.ask(call{op: "fchmodat", name: name, changes: true}, func(int) error { return t.Backing.Fchmodat(dirfd, name, mode) })
}

func (t *tap) Fchownat(dirfd int, name string, uid, gid int) error {
	return t.ask(call{op: "fchownat", name: name, changes: true}, func(int) error { return t.Backing.Fchownat(dirfd, name, uid, gid) })
}

func (t *tap) Utimensat(dirfd int, name string, times *[2]unix.Timespec) error {
	return t.ask(call{op: "utimensat", name: name, changes: true}, func(int) error { return t.Backing.Utimensat(dirfd, name, times) })
}
