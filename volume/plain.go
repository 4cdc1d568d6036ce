package volume

import (
	"errors"

	"golang.org/x/sys/unix"
)

var errNotPlain = errors.New("no regular file")

// openPlain opens a file that kmsfs keeps something of its own in, below dirfd.
// What somebody put in its place is errNotPlain and is not opened, since already
// that may do something: a FIFO waits for its other end, a device acts. Where it
// is put there between look and open, O_NONBLOCK at least does not wait.
func openPlain(k Backing, dirfd int, name string, flags int) (int, error) {
	fd, _, err := openPlainSized(k, dirfd, name, flags)
	return fd, err
}

// openPlainSized is openPlain that tells how long the file was, in bytes.
func openPlainSized(k Backing, dirfd int, name string, flags int) (fd int, size int64, err error) {
	var st unix.Statx_t
	if err := k.Statx(dirfd, name, &st); err != nil {
		return -1, 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, 0, errNotPlain
	}
	fd, err = k.Openat(dirfd, name, flags|unix.O_NONBLOCK, 0)
	if err == unix.ELOOP || err == unix.ENXIO || err == unix.ENODEV {
		return -1, 0, errNotPlain
	}
	return fd, int64(st.Size), err
}
