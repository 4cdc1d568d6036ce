package volume

import "golang.org/x/sys/unix"

// patient is a Backing that makes a call again which a signal interrupted, as
// network file systems and FUSE let happen to every call, and peers lost data to.
// What did have an effect before it was interrupted may so end with EEXIST or
// ENOENT, as it does with every program.
type patient struct{ Backing }

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

func (p patient) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error { fd, err = p.Backing.Openat(dirfd, name, flags, mode); return err })
	return fd, err
}

// Close is over also when it was interrupted: the descriptor is gone.
func (p patient) Close(fd int) error {
	if err := p.Backing.Close(fd); err != unix.EINTR {
		return err
	}
	return nil
}

func (p patient) Statx(dirfd int, name string, st *unix.Statx_t) error {
	return retry(func() error { return p.Backing.Statx(dirfd, name, st) })
}

func (p patient) Statfs(fd int, st *unix.Statfs_t) error {
	return retry(func() error { return p.Backing.Statfs(fd, st) })
}

func (p patient) Pread(fd int, b []byte, cipherOff int64) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Pread(fd, b, cipherOff); return err })
	return n, err
}

func (p patient) Pwrite(fd int, b []byte, cipherOff int64) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Pwrite(fd, b, cipherOff); return err })
	return n, err
}

func (p patient) Ftruncate(fd int, cipherSize int64) error {
	return retry(func() error { return p.Backing.Ftruncate(fd, cipherSize) })
}

func (p patient) Fallocate(fd int, mode uint32, cipherOff, length int64) error {
	return retry(func() error { return p.Backing.Fallocate(fd, mode, cipherOff, length) })
}

func (p patient) Seek(fd int, off int64, whence int) (n int64, err error) {
	err = retry(func() error { n, err = p.Backing.Seek(fd, off, whence); return err })
	return n, err
}

func (p patient) Fsync(fd int) error {
	return retry(func() error { return p.Backing.Fsync(fd) })
}

func (p patient) Fdatasync(fd int) error {
	return retry(func() error { return p.Backing.Fdatasync(fd) })
}

func (p patient) Syncfs(fd int) error {
	return retry(func() error { return p.Backing.Syncfs(fd) })
}

func (p patient) Getdents(fd int, buf []byte) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Getdents(fd, buf); return err })
	return n, err
}

func (p patient) Mkdirat(dirfd int, name string, mode uint32) error {
	return retry(func() error { return p.Backing.Mkdirat(dirfd, name, mode) })
}

func (p patient) Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return retry(func() error { return p.Backing.Mknodat(dirfd, name, mode, dev) })
}

func (p patient) Symlinkat(target string, dirfd int, name string) error {
	return retry(func() error { return p.Backing.Symlinkat(target, dirfd, name) })
}

func (p patient) Readlinkat(dirfd int, name string, buf []byte) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Readlinkat(dirfd, name, buf); return err })
	return n, err
}

func (p patient) Linkat(olddir int, oldname string, newdir int, newname string) error {
	return retry(func() error { return p.Backing.Linkat(olddir, oldname, newdir, newname) })
}

func (p patient) LinkDescriptor(fd, newdir int, newname string) error {
	return retry(func() error { return p.Backing.LinkDescriptor(fd, newdir, newname) })
}

func (p patient) Unlinkat(dirfd int, name string, flags int) error {
	return retry(func() error { return p.Backing.Unlinkat(dirfd, name, flags) })
}

func (p patient) Renameat2(olddir int, oldname string, newdir int, newname string, flags uint) error {
	return retry(func() error { return p.Backing.Renameat2(olddir, oldname, newdir, newname, flags) })
}

func (p patient) Fgetxattr(fd int, name string, b []byte) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Fgetxattr(fd, name, b); return err })
	return n, err
}

func (p patient) Flistxattr(fd int, b []byte) (n int, err error) {
	err = retry(func() error { n, err = p.Backing.Flistxattr(fd, b); return err })
	return n, err
}

func (p patient) Fsetxattr(fd int, name string, value []byte, flags int) error {
	return retry(func() error { return p.Backing.Fsetxattr(fd, name, value, flags) })
}

func (p patient) Fremovexattr(fd int, name string) error {
	return retry(func() error { return p.Backing.Fremovexattr(fd, name) })
}

func (p patient) Fchmodat(dirfd int, name string, mode uint32) error {
	return retry(func() error { return p.Backing.Fchmodat(dirfd, name, mode) })
}

func (p patient) Fchownat(dirfd int, name string, uid, gid int) error {
	return retry(func() error { return p.Backing.Fchownat(dirfd, name, uid, gid) })
}

func (p patient) Utimensat(dirfd int, name string, times *[2]unix.Timespec) error {
	return retry(func() error { return p.Backing.Utimensat(dirfd, name, times) })
}
