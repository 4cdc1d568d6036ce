package volume

import "golang.org/x/sys/unix"

// The xattr calls refuse O_PATH descriptors with EBADF; the magic link leads to
// the very inode that is open, a symbolic link included.

// Fgetxattr reads an attribute into b; unix.ERANGE if b is too small.
func (System) Fgetxattr(fd int, name string, b []byte) (int, error) {
	n, err := unix.Fgetxattr(fd, name, b)
	if err == unix.EBADF {
		return unix.Getxattr(procDescriptor(fd), name, b)
	}
	return n, err
}

// Flistxattr reads the names, each with a NUL at its end; unix.ERANGE if b is
// too small.
func (System) Flistxattr(fd int, b []byte) (int, error) {
	n, err := unix.Flistxattr(fd, b)
	if err == unix.EBADF {
		return unix.Listxattr(procDescriptor(fd), b)
	}
	return n, err
}

// Fsetxattr sets an attribute; flags are XATTR_CREATE or XATTR_REPLACE.
func (System) Fsetxattr(fd int, name string, value []byte, flags int) error {
	err := unix.Fsetxattr(fd, name, value, flags)
	if err == unix.EBADF {
		return unix.Setxattr(procDescriptor(fd), name, value, flags)
	}
	return err
}

// Fremovexattr removes an attribute.
func (System) Fremovexattr(fd int, name string) error {
	err := unix.Fremovexattr(fd, name)
	if err == unix.EBADF {
		return unix.Removexattr(procDescriptor(fd), name)
	}
	return err
}
