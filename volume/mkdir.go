package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Mkdir makes a directory: under a temporary name beside its place, so that it
// inherits what new entries there inherit, and renamed once its record is in it.
func (n *Node) Mkdir(name string, mode uint32, owner Owner) (*Node, Attr, error) {
	if err := n.vol.beginNames(); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.endNames()
	v := n.vol
	if v.readOnly {
		return nil, Attr{}, unix.EROFS
	}
	e, err := n.encode(name)
	if err != nil {
		return nil, Attr{}, err
	}
	parentID, err := n.dirID()
	if err != nil {
		return nil, Attr{}, err
	}
	d, err := n.use()
	if err != nil {
		return nil, Attr{}, err
	}
	defer d.release()

	id, err := crypto.NewID(v.random)
	if err != nil {
		return nil, Attr{}, err
	}
	tmp := tmpPrefix + id.String()
	in := v.intend(intent{kind: intentMake, id: id, to: entryIn(n, e.backing)})
	defer in.done()
	if err := v.backing.Mkdirat(d.fd, tmp, mode&0o7777|0o700); err != nil {
		return nil, Attr{}, err
	}
	rec := crypto.DirRecord{ID: id, BindingA: v.binder.Binding(parentID, name)}
	fd, err := n.fillDirectory(d, tmp, rec, mode, owner)
	if err == nil {
		defer v.backing.Close(fd)
		err = n.storeLongName(d.fd, e)
	}
	if err == nil {
		err = v.renameNew(d.fd, tmp, d.fd, e.backing, 0)
		if err != nil && err != unix.EEXIST {
			v.dropLongName(d.fd, e.backing)
		}
	}
	if err != nil {
		in.leave(v.removeTemporary(d.fd, tmp))
		return nil, Attr{}, err
	}

	var st unix.Statx_t
	if err := v.backing.Statx(fd, "", &st); err != nil {
		return nil, Attr{}, err
	}
	child := v.internNew(place{parent: n, name: name, backing: e.backing}, &st)
	child.mu.Lock()
	child.dir = &directory{id: id, at: place{parent: n, name: name, backing: e.backing}}
	child.mu.Unlock()
	v.debts.owe(recordDebt(id), child)
	a, err := child.attr(&st)
	return child, a, err
}

// fillDirectory writes the record into a new directory and gives it its owner
// and mode. It returns the directory's open descriptor.
func (n *Node) fillDirectory(d *descriptor, tmp string, rec crypto.DirRecord, mode uint32, owner Owner) (int, error) {
	k := n.vol.backing
	var st unix.Statx_t
	if err := k.Statx(d.fd, tmp, &st); err != nil {
		return -1, err
	}
	// What it inherited stays: the bit of a setgid directory, and what a default
	// ACL made of the mode. Only the owner's bits were widened for us.
	made := uint32(st.Mode) & 0o7777
	final := made &^ (^mode & 0o700)
	if made&0o700 != 0o700 {
		if err := k.Fchmodat(d.fd, tmp, made|0o700); err != nil {
			return -1, err
		}
	}
	fd, err := k.Openat(d.fd, tmp, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	var b [crypto.DirRecordSize]byte
	err = n.vol.dirs.Seal(b[:], n.vol.random, rec)
	if err == nil {
		err = writeNew(k, fd, recordName, 0o600, b[:])
	}
	if err == nil {
		err = n.chown(fd, "", 0, owner)
	}
	if err == nil && final&0o700 != 0o700 {
		err = k.Fchmodat(fd, "", final)
	}
	if err != nil {
		k.Close(fd)
		return -1, err
	}
	return fd, nil
}

// removeTemporary removes what a failed mkdir or rename left under a temporary
// name: an empty directory with its record, or a record.
func (v *Volume) removeTemporary(dirfd int, tmp string) error {
	fd, err := v.backing.Openat(dirfd, tmp, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return v.backing.Unlinkat(dirfd, tmp, 0)
	}
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	err = v.backing.Unlinkat(fd, recordName, 0)
	v.backing.Close(fd)
	if err != nil && err != unix.ENOENT {
		return err
	}
	return v.backing.Unlinkat(dirfd, tmp, unix.AT_REMOVEDIR)
}
