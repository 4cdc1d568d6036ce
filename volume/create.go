package volume

import (
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Owner is whom a new object belongs to. The zero value means the daemon's own
// user; as root, a mount passes the caller.
type Owner struct {
	Set      bool
	UID, GID uint32
}

// isOther tells whether the daemon has to give away what it makes.
func (o Owner) isOther() bool {
	return o.Set && (int(o.UID) != os.Geteuid() || int(o.GID) != os.Getegid())
}

// Create makes a regular file and opens it. mode holds the permission bits;
// the umask has been applied.
func (n *Node) Create(name string, mode uint32, owner Owner) (*Node, Attr, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.end()
	if n.vol.readOnly {
		return nil, Attr{}, unix.EROFS
	}
	e, err := n.encode(name)
	if err != nil {
		return nil, Attr{}, err
	}
	dir, err := n.dirID()
	if err != nil {
		return nil, Attr{}, err
	}
	key, err := n.vol.pool.take()
	if err != nil {
		return nil, Attr{}, err
	}
	d, err := n.use()
	if err != nil {
		n.vol.pool.put(key)
		return nil, Attr{}, err
	}
	defer d.release()
	return n.createIn(d, dir, e, mode, owner, key)
}

// createIn makes the backing file with its record. On failure nothing is left,
// and the key is given back.
func (n *Node) createIn(d *descriptor, dir crypto.ID, e entryName, mode uint32, owner Owner, key newFileKey) (*Node, Attr, error) {
	if err := n.vol.lockNames(); err != nil {
		n.vol.pool.put(key)
		return nil, Attr{}, err
	}
	defer n.vol.unlockNames()
	in := n.vol.intend(intent{kind: intentCreate, id: key.id, to: entryIn(n, e.backing)})
	child, a, err := n.createFile(in, d, dir, e, mode, owner, key)
	in.done()
	switch {
	case err == nil:
	case in.left: // the key's sidecar goes with what is left of the file
		key.wipe()
	default:
		n.vol.pool.put(key)
	}
	return child, a, err
}

func (n *Node) createFile(in *armedIntent, d *descriptor, dir crypto.ID, e entryName, mode uint32, owner Owner, key newFileKey) (*Node, Attr, error) {
	v := n.vol
	if err := n.storeLongName(d.fd, e); err != nil {
		return nil, Attr{}, err
	}
	fd, err := v.backing.Openat(d.fd, e.backing, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, mode&0o7777)
	if err != nil {
		if err != unix.EEXIST {
			v.dropLongName(d.fd, e.backing)
		}
		return nil, Attr{}, err
	}
	f, st, err := n.initFile(fd, v.binder.Binding(dir, e.plain), mode, owner, key)
	if err != nil {
		if uerr := v.backing.Unlinkat(d.fd, e.backing, 0); uerr != nil {
			var st unix.Statx_t
			_ = (System{}).Statx(fd, "", &st)
			in.moved = st.Ino
			in.leave(uerr)
		}
		v.backing.Close(fd)
		v.dropLongName(d.fd, e.backing)
		return nil, Attr{}, err
	}

	if f.shared != nil {
		holdUse(fd)
	}
	child := v.internNew(place{parent: n, name: e.plain, backing: e.backing}, &st)
	child.capability.noteAbsent(0)
	child.mu.Lock()
	f.node = child
	child.adopt(f, fd, true)
	child.mu.Unlock()
	v.keys.put(key.id, key.keys, child)
	a, err := child.attr(&st)
	return child, a, err
}

// initFile writes the record of a new file, open as fd, and gives it to its
// owner.
func (n *Node) initFile(fd int, binding [16]byte, mode uint32, owner Owner, key newFileKey) (f *file, st unix.Statx_t, err error) {
	v := n.vol
	f = &file{id: key.id, records: key.records, recSealer: key.recSealer}
	f.rec.BindingA = binding
	if f.shared = v.newSharedFile(); f.shared != nil {
		f.rec.Flags = crypto.FlagShared | crypto.FlagRootAbsent
	}
	f.rec.Generation = 1
	f.keys.Store(key.keys)
	f.writes.Store(key.writes)
	var header [crypto.HeaderSize]byte
	if err = f.recSealer.Seal(header[:], f.rec); err != nil {
		return nil, st, err
	}
	if err = n.chown(fd, "", mode, owner); err != nil {
		return nil, st, err
	}
	if _, err = pwriteFull(v.backing, fd, header[:], 0); err != nil {
		return nil, st, err
	}
	if err = v.backing.Statx(fd, "", &st); err != nil {
		return nil, st, err
	}
	if err = v.putSpecialBack(fd, mode, &st); err != nil {
		return nil, st, err
	}
	return f, st, nil
}

// putSpecialBack sets suid and sgid of the file that is open as fd again, as
// mode has them, where a write of ours by an ordinary user took them away. st is
// the status after it.
func (v *Volume) putSpecialBack(fd int, mode uint32, st *unix.Statx_t) error {
	lost := uint16(mode&(unix.S_ISUID|unix.S_ISGID)) &^ st.Mode
	if lost == 0 {
		return nil
	}
	if err := v.backing.Fchmodat(fd, "", uint32(st.Mode|lost)&0o7777); err != nil {
		return err
	}
	return v.backing.Statx(fd, "", st)
}

// chown gives a new object, name below dirfd or "" for what is open as dirfd, to
// its owner. In a setgid directory it keeps the group that it inherited; the
// mode, which a default ACL may have narrowed, is set again where chown drops
// bits of it.
func (n *Node) chown(dirfd int, name string, mode uint32, owner Owner) error {
	if !owner.isOther() {
		return nil
	}
	k := n.vol.backing
	gid := int(owner.GID)
	setgid, err := n.isSetgid()
	if err != nil {
		return err
	}
	if setgid {
		gid = -1
	}
	special := mode&(unix.S_ISUID|unix.S_ISGID) != 0
	var st unix.Statx_t
	if special {
		if err := k.Statx(dirfd, name, &st); err != nil {
			return err
		}
	}
	if err := k.Fchownat(dirfd, name, int(owner.UID), gid); err != nil {
		return err
	}
	if special {
		return k.Fchmodat(dirfd, name, uint32(st.Mode)&0o7777)
	}
	return nil
}

// isSetgid tells whether new entries of the directory inherit its group.
func (n *Node) isSetgid() (bool, error) {
	var st unix.Statx_t
	err := n.stat(&st)
	return st.Mode&unix.S_ISGID != 0, err
}

// Mknod makes a FIFO, socket or device; mode holds its type and permissions.
// Its backing object is the same, under an encrypted name.
func (n *Node) Mknod(name string, mode uint32, major, minor uint32, owner Owner) (*Node, Attr, error) {
	if err := n.vol.beginNames(); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.endNames()
	return n.makeEntry(name, making{mode: mode, owner: owner, make: func(d *descriptor, backing string) error {
		return n.vol.backing.Mknodat(d.fd, backing, mode, int(unix.Mkdev(major, minor)))
	}})
}

// making says how to make an object that is no data file and no directory.
type making struct {
	make  func(d *descriptor, backing string) error // in d, under that name
	owner Owner
	mode  uint32    // suid and sgid
	link  crypto.ID // of a long symlink, its target's
	// intended: the caller's intent covers it.
	intended bool
}

// makeEntry makes such an object. What is to be given away shows under its name
// only then.
func (n *Node) makeEntry(name string, m making) (*Node, Attr, error) {
	v := n.vol
	if v.readOnly {
		return nil, Attr{}, unix.EROFS
	}
	e, err := n.encode(name)
	if err != nil {
		return nil, Attr{}, err
	}
	d, err := n.use()
	if err != nil {
		return nil, Attr{}, err
	}
	defer d.release()
	id := m.link // of the temporary, too
	var in *armedIntent
	if !m.intended && (e.full != "" || !id.IsZero() || m.owner.isOther()) {
		if id.IsZero() {
			if id, err = crypto.NewID(v.random); err != nil {
				return nil, Attr{}, err
			}
		}
		in = v.intend(intent{kind: intentMake, id: id, to: entryIn(n, e.backing)})
		defer in.done()
	}
	if err := n.storeLongName(d.fd, e); err != nil {
		return nil, Attr{}, err
	}
	if m.owner.isOther() {
		err = n.makeFor(in, d, e, &m)
	} else {
		err = m.make(d, e.backing)
	}
	if err != nil {
		if !m.link.IsZero() {
			_ = v.backing.Unlinkat(v.links, m.link.String(), 0)
		}
		if err != unix.EEXIST {
			v.dropLongName(d.fd, e.backing)
		}
		return nil, Attr{}, err
	}
	return n.found(d, place{parent: n, name: name, backing: e.backing}, false)
}

// makeFor makes an object under a temporary name, gives it to its owner, and
// moves it to its place.
func (n *Node) makeFor(in *armedIntent, d *descriptor, e entryName, m *making) error {
	tmp := tmpPrefix + in.id.String()
	err := m.make(d, tmp)
	if err != nil {
		return err
	}
	if err = n.chown(d.fd, tmp, m.mode, m.owner); err == nil {
		err = n.vol.renameNew(d.fd, tmp, d.fd, e.backing, 0)
	}
	if err != nil {
		in.leave(n.vol.backing.Unlinkat(d.fd, tmp, 0))
	}
	return err
}
