package snapshot

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// attributesOf reads the attributes of an inode that is open as fd, if only as
// O_PATH.
func attributesOf(fd int, st *unix.Statx_t) (a Attributes, err error) {
	a = Attributes{
		Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid,
		MTime: unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)},
		ATime: unix.Timespec{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)},
	}
	a.Xattrs, err = xattrsOf(fd)
	return a, err
}

// isKept tells whether an extended attribute of a backing inode is the volume's:
// its own, encrypted, and POSIX ACLs.
func isKept(name string) bool {
	return strings.HasPrefix(name, "user.kmsfs.") || strings.HasPrefix(name, "trusted.kmsfs.") ||
		name == "system.posix_acl_access" || name == "system.posix_acl_default"
}

// xattrsOf reads those that are kept, by name. A store that has none has none.
func xattrsOf(fd int) ([]Xattr, error) {
	path := procPath(fd) // O_PATH descriptors have no other way
	b, err := grow(func(b []byte) (int, error) { return unix.Listxattr(path, b) })
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Xattr
	for name := range bytes.SplitSeq(b, []byte{0}) {
		if !isKept(string(name)) {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Getxattr(path, string(name), b) })
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Xattr{string(name), value})
	}
	slices.SortFunc(out, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// grow calls what fills a buffer until it fits.
func grow(call func([]byte) (int, error)) ([]byte, error) {
	b := make([]byte, 256)
	for {
		n := 0
		err := again(func() (err error) { n, err = call(b); return err })
		switch {
		case err == nil:
			return b[:n:n], nil
		case err != unix.ERANGE:
			return nil, err
		}
		if n, err = call(nil); err != nil {
			return nil, err
		}
		b = make([]byte, n+64)
	}
}

// apply gives an inode that is open as fd, if only as O_PATH, its attributes. Only
// root can give it an owner; else it is left. Times come last.
func (a *Attributes) apply(fd int, isLink, asRoot bool) error {
	path := procPath(fd)
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return err
	}
	if asRoot && (st.Uid != a.UID || st.Gid != a.GID) {
		if err := unix.Fchownat(fd, "", int(a.UID), int(a.GID), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		st.Mode |= 0o7777 // it may have lost bits
	}
	now, err := xattrsOf(fd)
	if err != nil {
		return err
	}
	for _, x := range now {
		if !slices.ContainsFunc(a.Xattrs, func(y Xattr) bool { return x.Name == y.Name }) {
			if err := unix.Removexattr(path, x.Name); err != nil && err != unix.ENODATA {
				return err
			}
		}
	}
	for _, x := range a.Xattrs {
		if !slices.ContainsFunc(now, func(y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) }) {
			if err := unix.Setxattr(path, x.Name, x.Value, 0); err != nil {
				return err
			}
		}
	}
	// After the ACLs, which set the group's bits too.
	if !isLink {
		if err := statx(fd, "", &st); err != nil {
			return err
		}
		if uint32(st.Mode)&0o7777 != a.Mode {
			if err := chmodOpen(fd, a.Mode); err != nil {
				return err
			}
		}
	}
	return again(func() error {
		return unix.UtimesNanoAt(fd, "", []unix.Timespec{a.ATime, a.MTime}, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	})
}

// equal tells whether two inodes are to look the same, but for access times, and
// owners where they cannot be changed.
func (a *Attributes) equal(b *Attributes, owners bool) bool {
	return a.Mode == b.Mode && a.MTime == b.MTime && (!owners || a.UID == b.UID && a.GID == b.GID) &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// readSmall reads a regular file of at most limit bytes.
func readSmall(dirfd int, name string, limit int) ([]byte, error) {
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > uint64(limit) {
		return nil, unix.EINVAL
	}
	b := make([]byte, st.Size+1)
	n, err := io.ReadFull(fileAt{fd, new(int64)}, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	if err == nil && n == len(b) {
		err = unix.EINVAL // it grows
	}
	return b[:n], err
}

// fileAt reads a descriptor in order, without its position.
type fileAt struct {
	fd  int
	off *int64
}

func (f fileAt) Read(b []byte) (int, error) {
	n, err := preadSome(f.fd, b, *f.off)
	*f.off += int64(n)
	return n, err
}

// preadSome reads at least a byte, or is io.EOF.
func preadSome(fd int, b []byte, off int64) (n int, err error) {
	err = again(func() error { n, err = unix.Pread(fd, b, off); return err })
	if err != nil {
		return 0, err
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func readlinkat(dirfd int, name string) (string, error) {
	b := make([]byte, maxTarget)
	n := 0
	err := again(func() (err error) { n, err = unix.Readlinkat(dirfd, name, b); return err })
	return string(b[:max(n, 0)]), err
}
