package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// walker is told what a walk through a backing directory comes by: entries of a
// directory by the bytes of their names, and of a directory first itself, then
// what is in it, then its end. What is gone by the time it is looked at was never
// there. It sees no .kmsfs, and nothing of what isOwn.
type walker interface {
	// enter is told of a directory, open as fd, and says whether to go into it.
	enter(at *dirStack, fd int, name string, st *unix.Statx_t) (into bool, err error)
	// entry is told of anything else.
	entry(at *dirStack, name string, st *unix.Statx_t) error
	// leave is told of the end of the directory in which the walk is.
	leave(at *dirStack) error
}

// walkTree walks through the backing directory that is open as root, itself
// included. lift opens directories that their owner may not read.
func walkTree(ctx context.Context, root int, lift bool, w walker) error {
	s := new(dirStack)
	defer s.close()
	rest := [][]string{}
	var lifted []func()
	defer func() {
		for _, undo := range lifted {
			undo()
		}
	}()
	down := func(fd int, name string, st *unix.Statx_t, undo func()) error {
		into, err := w.enter(s, fd, name, st)
		if err == nil && into {
			var names []string
			if names, err = listNames(fd, name == ""); err == nil {
				if err := s.push(fd, name); err != nil {
					undo()
					return err
				}
				rest, lifted = append(rest, names), append(lifted, undo)
				return nil
			}
		}
		unix.Close(fd)
		undo()
		if err != nil {
			return fmt.Errorf("read directory %s: %w", s.path(name), err)
		}
		return nil
	}
	var st unix.Statx_t
	if err := statx(root, "", &st); err != nil {
		return err
	}
	fd, undo, err := openDirectory(root, ".", &st, lift)
	if err != nil {
		return err
	}
	if err := down(fd, "", &st, undo); err != nil {
		return err
	}
	for len(rest) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		last := len(rest) - 1
		if len(rest[last]) == 0 {
			if err := w.leave(s); err != nil {
				return err
			}
			if err := s.pop(); err != nil {
				return err
			}
			lifted[last]()
			rest, lifted = rest[:last], lifted[:last]
			continue
		}
		name := rest[last][0]
		rest[last] = rest[last][1:]
		err := statx(s.fd(), name, &st)
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if fd, undo, err = openDirectory(s.fd(), name, &st, lift); err == nil {
				if err := down(fd, name, &st, undo); err != nil {
					return err
				}
				continue
			}
		} else if err == nil {
			err = w.entry(s, name, &st)
		}
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", s.path(name), err)
		}
	}
	return nil
}

// openDirectory opens a directory for reading, by widening its mode meanwhile where
// it takes that and lift says so; undo puts it back.
func openDirectory(dirfd int, name string, st *unix.Statx_t, lift bool) (fd int, undo func(), err error) {
	nothing := func() {}
	mode := uint32(st.Mode) & 0o7777
	if lift && os.Geteuid() != 0 && int(st.Uid) == os.Geteuid() && mode&0o500 != 0o500 {
		p, err := openat(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1, nothing, err
		}
		if err := chmodOpen(p, mode|0o500); err != nil {
			unix.Close(p)
			return -1, nothing, err
		}
		undo = func() { _ = chmodOpen(p, mode); unix.Close(p) }
		if fd, err = openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
			undo()
			return -1, nothing, err
		}
		return fd, undo, nil
	}
	fd, err = openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return fd, nothing, err
}

// chmodOpen changes the mode of what is open, if only as O_PATH.
func chmodOpen(fd int, mode uint32) error {
	return again(func() error { return unix.Fchmodat(unix.AT_FDCWD, procPath(fd), mode, 0) })
}

func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// listNames lists the entries of a directory, sorted.
func listNames(dirfd int, root bool) ([]string, error) {
	all, err := listAll(dirfd)
	return slices.DeleteFunc(all, func(name string) bool { return isOwn(name) || root && name == metaDir }), err
}

// listAll lists all that is in a directory, sorted.
func listAll(dirfd int) ([]string, error) {
	fd, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := os.NewFile(uintptr(fd), "directory")
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return nil, errno
		}
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}
