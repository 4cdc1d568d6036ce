package model

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Store is what a target can do because the file system below it can. Where it
// cannot, it has to answer EOPNOTSUPP.
type Store struct {
	Xattrs  bool
	Tmpfile bool // O_TMPFILE
}

// ProbeStore finds out what the file system of a directory can do.
func ProbeStore(dir string) (Store, error) {
	const name = "user.kmsfs-probe"
	errXattr := unix.Setxattr(dir, name, nil, 0)
	if errXattr == nil {
		errXattr = unix.Removexattr(dir, name)
	}
	fd, errTmpfile := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if errTmpfile == nil {
		unix.Close(fd)
	}
	for _, err := range []error{errXattr, errTmpfile} {
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return Store{}, &os.PathError{Op: "probe", Path: dir, Err: err}
		}
	}
	return Store{Xattrs: errXattr == nil, Tmpfile: errTmpfile == nil}, nil
}
