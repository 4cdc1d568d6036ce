package snapshot

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// dirStack is the way from the backing directory to where a walk is. However deep
// that may be, it has few descriptors: of what is further up it remembers the
// inode, and comes back there by "..", which has to be that one.
type dirStack struct {
	levels []dirLevel
}

type dirLevel struct {
	fd       int // -1: closed
	dev, ino uint64
	name     string // in the one above
}

// openLevels is how many levels keep their descriptors.
const openLevels = 64

// errMoved: a directory is not where it was.
var errMoved = errors.New("a directory was moved meanwhile")

// push goes down into a directory that is open as fd, which is the stack's from
// then on, also where that fails.
func (s *dirStack) push(fd int, name string) error {
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		unix.Close(fd)
		return err
	}
	if n := len(s.levels) - openLevels; n >= 0 && s.levels[n].fd >= 0 && n > 0 {
		unix.Close(s.levels[n].fd)
		s.levels[n].fd = -1
	}
	s.levels = append(s.levels, dirLevel{fd, device(&st), st.Ino, name})
	return nil
}

// pop goes up.
func (s *dirStack) pop() error {
	last := len(s.levels) - 1
	from := s.levels[last].fd
	defer unix.Close(from)
	s.levels = s.levels[:last]
	if last == 0 || s.levels[last-1].fd >= 0 {
		return nil
	}
	up := &s.levels[last-1]
	fd, err := unix.Openat(from, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", errMoved, err)
	}
	var st unix.Statx_t
	if err = statx(fd, "", &st); err == nil && (device(&st) != up.dev || st.Ino != up.ino) {
		err = errMoved
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	up.fd = fd
	return nil
}

// fd is the directory where the walk is.
func (s *dirStack) fd() int { return s.levels[len(s.levels)-1].fd }

// close gives all descriptors back.
func (s *dirStack) close() {
	for _, l := range s.levels {
		if l.fd >= 0 {
			unix.Close(l.fd)
		}
	}
	s.levels = nil
}

// path is that of an entry of the directory, or with "" its own, below BACKING;
// only the end where it is very long.
func (s *dirStack) path(name string) string {
	const most = 4096
	parts := []string{}
	size := 0
	if name != "" {
		parts = append(parts, name)
	}
	for i := len(s.levels) - 1; i > 0 && size < most; i-- {
		parts = append(parts, s.levels[i].name)
		size += len(s.levels[i].name) + 1
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	if len(parts) == 0 {
		return "."
	}
	return strings.Join(parts, "/")
}

// statx is the status of an entry, or with "" of dirfd itself.
func statx(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	return again(func() error { return unix.Statx(dirfd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, st) })
}

func device(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

// again makes a system call until no signal interrupts it.
func again(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openat opens what is no symbolic link.
func openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	err = again(func() error {
		fd, err = unix.Openat(dirfd, name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NOCTTY, mode)
		return err
	})
	return fd, err
}
