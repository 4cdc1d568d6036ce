package volume

import (
	"os"

	"golang.org/x/sys/unix"
)

// lifted runs call while the owner's permissions of the inode open as fd (O_PATH
// will do) are widened by add, and puts the mode back. It is for what an
// ordinary user owns and kmsfs must reach though he gave up the permission:
// records of 0444 files that he renames, of directories he may not search. A
// redo slot holds the mode meanwhile. Errors: unix.EACCES where it is not ours.
func (v *Volume) lifted(fd int, add uint32, path string, call func() error) error {
	var st unix.Statx_t
	if err := v.backing.Statx(fd, "", &st); err != nil {
		return err
	}
	mode := uint32(st.Mode) & 0o7777
	if v.readOnly || int(st.Uid) != os.Geteuid() || mode&add == add {
		return unix.EACCES
	}
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)
	c := change{ino: st.Ino, path: path, flags: slotMode, mode: mode}
	s.arm(v.redo.session, &c)
	if err := v.backing.Fchmodat(fd, "", mode|add); err != nil {
		return err
	}
	err = call()
	if back := v.backing.Fchmodat(fd, "", mode); back != nil {
		if !v.keep(&lateChange{slot: s, change: c, cause: back}) {
			v.log.Error("a mode stays as it was widened", "backing", path, "error", back)
		}
		if err == nil {
			err = back
		}
	}
	return err
}

// lifting runs call, and again with the owner's permissions widened if it is
// refused without.
func (v *Volume) lifting(fd int, add uint32, path string, call func() error) error {
	if err := call(); err != unix.EACCES {
		return err
	}
	return v.lifted(fd, add, path, call)
}

// reopenLifted opens a data file whose mode does not allow its owner to.
func (n *Node) reopenLifted(flags int) (int, error) {
	handle, err := n.reopen(unix.O_PATH)
	if err != nil {
		return -1, err
	}
	defer n.vol.backing.Close(handle)
	fd := -1
	err = n.vol.lifted(handle, 0o600, n.BackingPath(), func() (err error) {
		fd, err = n.reopen(flags)
		return err
	})
	return fd, err
}

// openInside opens an entry of a directory that is open as d, also where its
// owner may not search or read it.
func (n *Node) openInside(d *descriptor, name string, flags int) (fd int, err error) {
	k := n.vol.backing
	if fd, err = k.Openat(d.fd, name, flags, 0); err != unix.EACCES {
		return fd, err
	}
	lerr := n.vol.lifted(d.fd, 0o700, n.BackingPath(), func() (e error) {
		fd, e = k.Openat(d.fd, name, flags, 0)
		return e
	})
	return fd, lerr
}

// readInside reads a small file of a directory that is open as d, likewise.
func (n *Node) readInside(d *descriptor, name string, limit int) ([]byte, error) {
	k := n.vol.backing
	b, err := readSmall(k, d.fd, name, limit)
	if err != unix.EACCES {
		return b, err
	}
	err = n.vol.lifted(d.fd, 0o700, n.BackingPath(), func() (e error) {
		b, e = readSmall(k, d.fd, name, limit)
		return e
	})
	return b, err
}
