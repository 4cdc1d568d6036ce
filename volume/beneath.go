package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// beneath goes through a backing directory and all that is below it, however deep,
// with two descriptors: it comes back from a directory by its "..", which has to be
// the one that it came from. It sees backing names, and nothing of what they mean.
type beneath struct {
	backing Backing
	// visit is told of each entry, and says whether to go into it.
	visit func(dirfd int, e dirent, depth int) (into bool, err error)
	// closed is told of a directory that cannot be gone into; nil goes on. Where it
	// is errNoWayBack, all that is left ends with that.
	closed func(err error) error
}

// errNoWayBack: a directory was moved meanwhile, or its owner may not look above it.
var errNoWayBack = errors.New("the directory above cannot be gone back to")

// errFound ends a walk that was to find something.
var errFound = errors.New("found")

// beneathLevel is a directory that is being gone through.
type beneathLevel struct {
	key  nodeKey
	rest []dirent
}

// walk begins in the directory that is open as dirfd.
func (b *beneath) walk(dirfd int) error {
	first, err := b.enter(dirfd)
	if err != nil {
		return b.closed(err)
	}
	levels, fd := []beneathLevel{first}, dirfd
	leave := func(next int) {
		if fd != dirfd {
			_ = b.backing.Close(fd)
		}
		fd = next
	}
	defer func() { leave(dirfd) }()
	for {
		last := len(levels) - 1
		if len(levels[last].rest) == 0 {
			levels = levels[:last]
			switch last {
			case 0:
				return nil
			case 1:
				leave(dirfd)
			default:
				up, err := openSame(b.backing, fd, "..", levels[last-1].key)
				if err != nil {
					return b.closed(fmt.Errorf("%w: %w", errNoWayBack, err))
				}
				leave(up)
			}
			continue
		}
		e := levels[last].rest[0]
		levels[last].rest = levels[last].rest[1:]
		if e.kind == 0 { // the store does not say
			var st unix.Statx_t
			if b.backing.Statx(fd, e.name, &st) == nil {
				e.kind = uint32(st.Mode) & unix.S_IFMT
			}
		}
		into, err := b.visit(fd, e, last)
		if err != nil {
			return err
		}
		if !into {
			continue
		}
		down, err := b.backing.Openat(fd, e.name, unix.O_PATH|unix.O_DIRECTORY, 0)
		var next beneathLevel
		if err == nil {
			if next, err = b.enter(down); err != nil {
				_ = b.backing.Close(down)
			}
		}
		if err != nil {
			if err = b.closed(err); err != nil {
				return err
			}
			continue
		}
		leave(down)
		levels = append(levels, next)
	}
}

func (b *beneath) enter(fd int) (l beneathLevel, err error) {
	var st unix.Statx_t
	if err = b.backing.Statx(fd, "", &st); err == nil {
		l.key = keyOf(&st)
		l.rest, err = listDescriptor(b.backing, fd)
	}
	return l, err
}

// openSame opens a directory (O_PATH) if it is the inode that it should be.
func openSame(k Backing, dirfd int, name string, key nodeKey) (int, error) {
	fd, err := k.Openat(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if err = k.Statx(fd, "", &st); err == nil && keyOf(&st) != key {
		err = unix.ENOENT
	}
	if err != nil {
		_ = k.Close(fd)
		return -1, err
	}
	return fd, nil
}
