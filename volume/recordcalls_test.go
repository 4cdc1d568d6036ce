package volume

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

func (r *recorder) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.at(dirfd, name)
	if flags&unix.O_TRUNC != 0 {
		r.t.Errorf("recorder: open with O_TRUNC")
	}
	if flags&(unix.O_CREAT|unix.O_TMPFILE) != 0 {
		r.lookAtRedo()
	}
	if fd, err = r.Backing.Openat(dirfd, name, flags, mode); err != nil || r.off {
		return fd, err
	}
	switch {
	case flags&unix.O_TMPFILE == unix.O_TMPFILE:
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		r.byFD[fd] = r.newObject(st.Ino, st.Mode, "tmpfile")
	case flags&unix.O_CREAT != 0 && before == nil:
		o := r.fresh(dirfd, name)
		r.byFD[fd] = o
		r.note(event{kind: evEntry, dir: r.object(dirfd), name: name, obj: o})
		if strings.HasPrefix(o.path, metaDir+"/redo/") {
			r.redo[fd] = &redoImage{o, map[int64][pageSize]byte{}}
		}
	default:
		delete(r.byFD, fd)
		if o := r.object(fd); o != nil {
			r.byFD[fd] = o
		}
	}
	return fd, nil
}

func (r *recorder) Close(fd int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookAtRedo()
	delete(r.byFD, fd)
	delete(r.redo, fd)
	return r.Backing.Close(fd)
}

func (r *recorder) Pwrite(fd int, b []byte, off int64) (n int, err error) {
	err = r.change(func() (err error) { n, err = r.Backing.Pwrite(fd, b, off); return err }, func() event {
		return event{kind: evWrite, obj: r.object(fd), off: off, data: bytes.Clone(b[:n])}
	})
	return n, err
}

func (r *recorder) Ftruncate(fd int, size int64) error {
	return r.change(func() error { return r.Backing.Ftruncate(fd, size) }, func() event {
		return event{kind: evSize, obj: r.object(fd), n: size}
	})
}

func (r *recorder) Fallocate(fd int, mode uint32, off, length int64) error {
	return r.change(func() error { return r.Backing.Fallocate(fd, mode, off, length) }, func() event {
		switch mode {
		case 0:
			return event{kind: evSize, obj: r.object(fd), n: off + length}
		case punchHole:
			return event{kind: evWrite, obj: r.object(fd), off: off, n: length}
		}
		return event{kind: evWrite, obj: r.object(fd), off: off, data: []byte{}}
	})
}

func (r *recorder) barrier(fd int, dataOnly bool, call func() error) error {
	by := barrierCallers()
	return r.change(call, func() event {
		e := event{kind: evAll}
		if fd >= 0 {
			e = event{kind: evSync, obj: r.object(fd), dataOnly: dataOnly}
		}
		class := barrierClass(&e) + ", by " + by
		r.seen[class]++
		if r.lies != nil && r.lies(class) {
			e = event{kind: evWrite, obj: r.root, data: []byte{}} // nothing
		}
		return e
	})
}

func (r *recorder) Fsync(fd int) error {
	return r.barrier(fd, false, func() error {
		if o := r.object(fd); r.noShelves && o.mode&unix.S_IFMT == unix.S_IFDIR && strings.HasPrefix(o.path, metaDir+"/keys/") {
			return unix.EIO
		}
		return nil
	})
}

func (r *recorder) Fdatasync(fd int) error {
	return r.barrier(fd, true, func() error { return nil })
}

func (r *recorder) Syncfs(int) error { return r.barrier(-1, false, func() error { return nil }) }

func (r *recorder) entry(dirfd int, name string, call func() error) error {
	return r.change(call, func() event {
		return event{kind: evEntry, dir: r.object(dirfd), name: name, obj: r.fresh(dirfd, name)}
	})
}

func (r *recorder) Mkdirat(dirfd int, name string, mode uint32) error {
	return r.entry(dirfd, name, func() error { return r.Backing.Mkdirat(dirfd, name, mode) })
}

func (r *recorder) Mknodat(dirfd int, name string, mode uint32, dev int) error {
	return r.entry(dirfd, name, func() error { return r.Backing.Mknodat(dirfd, name, mode, dev) })
}

func (r *recorder) Symlinkat(target string, dirfd int, name string) error {
	err := r.entry(dirfd, name, func() error { return r.Backing.Symlinkat(target, dirfd, name) })
	if err == nil {
		r.mu.Lock()
		r.at(dirfd, name).target = target
		r.mu.Unlock()
	}
	return err
}

func (r *recorder) Linkat(od int, on string, nd int, nn string) error {
	return r.change(func() error { return r.Backing.Linkat(od, on, nd, nn) }, func() event {
		return event{kind: evEntry, dir: r.object(nd), name: nn, obj: r.at(nd, nn)}
	})
}

func (r *recorder) LinkDescriptor(fd, nd int, nn string) error {
	return r.change(func() error { return r.Backing.LinkDescriptor(fd, nd, nn) }, func() event {
		return event{kind: evEntry, dir: r.object(nd), name: nn, obj: r.at(nd, nn)}
	})
}

func (r *recorder) Unlinkat(dirfd int, name string, flags int) error {
	return r.change(func() error { return r.Backing.Unlinkat(dirfd, name, flags) }, func() event {
		return event{kind: evGone, dir: r.object(dirfd), name: name}
	})
}

func (r *recorder) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	return r.change(func() error { return r.Backing.Renameat2(od, on, nd, nn, flags) }, func() event {
		return event{kind: evRename, dir: r.object(od), name: on, dir2: r.object(nd), name2: nn, flags: flags, obj: r.at(nd, nn)}
	})
}

func (r *recorder) Fsetxattr(fd int, name string, value []byte, flags int) error {
	return r.change(func() error { return r.Backing.Fsetxattr(fd, name, value, flags) }, func() event {
		return event{kind: evXattr, obj: r.object(fd), name: name, data: append([]byte{}, value...)}
	})
}

func (r *recorder) Fremovexattr(fd int, name string) error {
	return r.change(func() error { return r.Backing.Fremovexattr(fd, name) }, func() event {
		return event{kind: evXattr, obj: r.object(fd), name: name}
	})
}

func (r *recorder) Fchmodat(dirfd int, name string, mode uint32) error {
	return r.change(func() error { return r.Backing.Fchmodat(dirfd, name, mode) }, func() event {
		return event{kind: evMode, obj: r.at(dirfd, name), mode: mode}
	})
}
