package volume

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// materialize makes the state a directory. It returns what the inodes there are.
func (s *crashState) materialize(dir string) (map[uint64]*object, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	inodes := map[uint64]*object{}
	made := map[*object]string{}
	var fill func(o *object, path string) error
	fill = func(o *object, path string) error {
		made[o] = path
		for _, name := range slices.Sorted(maps.Keys(s.tree[o])) {
			child := s.tree[o][name]
			if child == nil {
				return fmt.Errorf("%s/%s: entry of nothing", path, name)
			}
			at := filepath.Join(path, name)
			if err := s.make(child, at, made[child]); err != nil {
				return err
			}
			if child.mode&unix.S_IFMT == unix.S_IFDIR {
				if made[child] != "" {
					return fmt.Errorf("%s: a directory in two places", at)
				}
				if err := fill(child, at); err != nil {
					return err
				}
			}
			made[child] = at
		}
		return s.attributes(o, path)
	}
	if err := fill(s.root, dir); err != nil {
		return nil, err
	}
	for o, path := range made {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return nil, err
		}
		inodes[st.Ino] = o
	}
	return inodes, nil
}

// make makes an object at a path, or links it to where it is already.
func (s *crashState) make(o *object, at, already string) error {
	switch o.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return os.Mkdir(at, 0o700)
	case unix.S_IFLNK:
		return os.Symlink(o.target, at)
	case unix.S_IFREG:
		if already != "" {
			return os.Link(already, at)
		}
		f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := s.content(o, f); err != nil {
			return err
		}
		return s.attributes(o, at)
	}
	return unix.Mknod(at, o.mode, 0)
}

// attributes sets mode and extended attributes.
func (s *crashState) attributes(o *object, at string) error {
	mode := o.mode & 0o777
	for name, value := range o.xattrs {
		if err := unix.Lsetxattr(at, name, value, 0); err != nil {
			return err
		}
	}
	for _, i := range o.events {
		e := &s.log[i]
		if e.obj != o || i >= s.attrCut[o] {
			continue
		}
		switch {
		case e.kind == evMode:
			mode = e.mode & 0o777
		case e.kind == evXattr && e.data != nil:
			if err := unix.Lsetxattr(at, e.name, e.data, 0); err != nil {
				return err
			}
		case e.kind == evXattr:
			_ = unix.Lremovexattr(at, e.name)
		}
	}
	return os.Chmod(at, os.FileMode(mode|0o600))
}
