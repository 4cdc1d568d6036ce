package volume

import (
	"cmp"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// settleIntents finishes or undoes operations on names that were cut short: by
// a kill of the last mount, before this one is used, or by a store that failed.
// Each is an intent of this mount until it is settled. It tells whether all are.
func (v *Volume) settleIntents() bool {
	all := true
	for _, a := range v.unsettled.take() {
		a.left = false
		if a.slot != nil {
			v.redo.hold(a.slot, false)
		}
		if err := v.settleIntent(&a.intent); err != nil {
			v.log.Warn("an interrupted operation on names could not be settled yet", "from", a.from.path+"/"+a.from.name,
				"to", a.to.path+"/"+a.to.name, "error", err)
			a.left, all = true, false
		}
		a.done()
	}
	return all
}

// halfway is one side of an interrupted operation: an entry as it is now.
type halfway struct {
	entryAt
	dir  *Node // nil if it is gone
	desc *descriptor
	node *Node // what is there; nil if nothing is, or its name does not decrypt
	here bool  // there is something
	kind uint32
	ino  uint64
}

func (v *Volume) settleIntent(in *intent) error {
	from, to := halfway{entryAt: in.from}, halfway{entryAt: in.to}
	ends := []*halfway{&from, &to}
	for _, h := range ends {
		if err := h.find(v); err != nil {
			return err
		}
		defer h.release()
	}
	var err error
	switch in.kind {
	case intentCreate:
		err = v.undoCreate(in, &to)
	case intentMake:
		if to.dir != nil {
			err = v.removeTemporary(to.desc.fd, tmpPrefix+in.id.String())
		}
	case intentRmdir:
		err = from.settleAside(v, in)
	case intentRename:
		err = v.finishRename(in, &from, &to)
	case intentLink:
		if !to.here && from.node != nil && in.flags&intentFirst != 0 {
			err = from.node.unmarkLinked(from.place())
		}
	}
	for _, h := range ends {
		err = errors.Join(err, h.look(v))
		if h.dir != nil && !h.here {
			v.dropLongName(h.desc.fd, h.name)
		}
	}
	if in.kind == intentRename {
		err = errors.Join(err, from.settleBinding(), to.settleBinding())
	}
	if in.kind == intentMake || in.kind == intentUnlink || in.kind == intentRename && in.displaced == 0 {
		v.dropLinkTarget(in.id, &from, &to)
	}
	return err
}

// find opens the directory of an entry and looks at the entry. A directory that
// is gone has taken everything along.
func (h *halfway) find(v *Volume) (err error) {
	if h.entryAt.dir == 0 {
		return nil
	}
	h.dir, err = v.findDir(h.entryAt)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	if h.desc, err = h.dir.use(); err != nil {
		return err
	}
	return h.look(v)
}

func (h *halfway) release() {
	if h.desc != nil {
		h.desc.release()
	}
}

// look looks at the entry again.
func (h *halfway) look(v *Volume) error {
	h.node, h.here = nil, false
	if h.dir == nil {
		return nil
	}
	var st unix.Statx_t
	if err := v.backing.Statx(h.desc.fd, h.name, &st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	h.here, h.kind, h.ino = true, uint32(st.Mode)&unix.S_IFMT, st.Ino
	h.node = h.dir.entryNode(h.desc, h.name)
	return nil
}

func (h *halfway) place() place {
	p, _ := h.node.at()
	return p
}

// entryNode is the node of a backing entry, or nil where its name does not
// decrypt.
func (n *Node) entryNode(d *descriptor, backing string) *Node {
	id, err := n.dirID()
	if err != nil {
		return nil
	}
	plain, err := n.vol.decode(id, d.fd, backing)
	if err != nil {
		return nil
	}
	child, _, err := n.found(d, place{parent: n, name: plain, backing: backing}, false)
	if err != nil {
		return nil
	}
	return child
}

// findDir finds a directory where its path says, or, if one above was renamed at
// that very moment, wherever it is now. unix.ENOENT if it is gone.
func (v *Volume) findDir(e entryAt) (*Node, error) {
	n := v.root
	for name := range strings.SplitSeq(e.path, "/") {
		if n == nil || name == "" {
			break
		}
		d, err := n.use()
		if err != nil {
			break
		}
		n = n.entryNode(d, name)
		d.release()
	}
	if n != nil && n.IsDir() && n.key.ino == e.dir {
		return n, nil
	}
	if v.root.key.ino == e.dir {
		return v.root, nil
	}
	return v.searchDir(e.dir)
}

// searchDir looks for a directory in the whole tree.
func (v *Volume) searchDir(ino uint64) (*Node, error) {
	var names []string // of those that lead to it
	b := beneath{backing: v.backing}
	b.visit = func(_ int, e dirent, depth int) (into bool, err error) {
		if e.kind != unix.S_IFDIR || depth == 0 && e.name == metaDir {
			return false, nil
		}
		if names = append(names[:depth], e.name); e.ino == ino {
			return false, errFound
		}
		return true, nil
	}
	b.closed = func(err error) error {
		if isStoreError(err) && !errors.Is(err, unix.EACCES) || errors.Is(err, errNoWayBack) {
			return err // it may be there
		}
		return nil
	}
	if err := b.walk(v.rootDesc.fd); err != errFound {
		return nil, cmp.Or(err, error(unix.ENOENT))
	}
	n := v.root
	for _, name := range names {
		d, err := n.use()
		if err != nil {
			return nil, err
		}
		n = n.entryNode(d, name)
		if d.release(); n == nil {
			return nil, unix.ENOENT
		}
	}
	return n, nil
}

// undoCreate removes a file that nobody was told of, with its sidecar. What else
// is under that name stays, if it is long enough to be something.
func (v *Volume) undoCreate(in *intent, to *halfway) error {
	if to.here {
		if to.kind != unix.S_IFREG || in.moved != 0 && in.moved != to.ino {
			return nil
		}
		fd, err := v.openOwn(to)
		if err != nil {
			return err
		}
		var header [crypto.HeaderSize]byte
		n, err := preadFull(v.backing, fd, header[:], 0)
		v.backing.Close(fd)
		if err != nil {
			return err
		}
		if id, err := crypto.HeaderFileID(header[:]); n == len(header) && (err != nil || id != in.id) {
			return nil
		}
		if err := v.backing.Unlinkat(to.desc.fd, to.name, 0); err != nil {
			return err
		}
	}
	return v.sidecars.remove(in.id)
}

// openOwn opens a data file for reading that its owner may not be allowed to.
func (v *Volume) openOwn(h *halfway) (int, error) {
	handle, err := v.backing.Openat(h.desc.fd, h.name, unix.O_PATH, 0)
	if err != nil {
		return -1, err
	}
	defer v.backing.Close(handle)
	fd := -1
	err = v.lifting(handle, 0o400, h.path+"/"+h.name, func() (err error) {
		fd, err = v.backing.Openat(h.desc.fd, h.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		return err
	})
	return fd, err
}

// settleAside puts the record back of a directory whose removal was interrupted,
// and removes it where the directory is gone.
func (h *halfway) settleAside(v *Volume, in *intent) error {
	if h.dir == nil {
		return nil
	}
	aside := tmpPrefix + in.id.String()
	var st unix.Statx_t
	if err := v.backing.Statx(h.desc.fd, aside, &st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	if !h.here || h.ino != in.displaced {
		return v.backing.Unlinkat(h.desc.fd, aside, 0)
	}
	fd, err := v.backing.Openat(h.desc.fd, h.name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer v.backing.Close(fd)
	return v.lifting(fd, 0o700, h.path+"/"+h.name, func() error {
		return v.renameNew(h.desc.fd, aside, fd, recordName, 0)
	})
}

// finishRename does what is left of a rename over an empty directory, which is
// more than one step; other renames are done or not.
func (v *Volume) finishRename(in *intent, from, to *halfway) error {
	if in.displaced == 0 || from.dir == nil || to.dir == nil {
		return nil
	}
	if err := errors.Join(from.settleAside(v, in), to.settleAside(v, in)); err != nil {
		return err
	}
	k := v.backing
	switch {
	case from.node != nil && from.ino == in.displaced: // they were exchanged
		if err := from.dir.removeDir(from.desc, from.node, from.name, in.id); err != nil {
			return err
		}
		from.node.gone(from.dir, from.name)
	case from.node != nil && from.ino == in.moved && !to.here: // it made room
		if err := k.Renameat2(from.desc.fd, from.name, to.desc.fd, to.name, 0); err != nil {
			return err
		}
		from.node.dropPlace(from.dir, from.name)
	}
	if err := errors.Join(from.look(v), to.look(v)); err != nil {
		return err
	}
	if in.flags&intentWhiteout != 0 && !from.here && to.here && to.ino == in.moved {
		return k.Mknodat(from.desc.fd, from.name, unix.S_IFCHR, 0)
	}
	return nil
}

// settleBinding leaves in the record of what is here only the binding to this
// place, if it has that.
func (h *halfway) settleBinding() error {
	if h.node == nil {
		return nil
	}
	id, err := h.dir.dirID()
	if err != nil {
		return err
	}
	here := h.dir.vol.binder.Binding(id, h.place().name)
	var a, b [16]byte
	switch h.node.mode {
	case unix.S_IFDIR:
		rec, err := h.node.readRecord()
		if err != nil {
			return err
		}
		a, b = rec.BindingA, rec.BindingB
	case unix.S_IFREG:
		f, err := h.node.openFile(false)
		if err != nil {
			return err
		}
		a, b = f.rec.BindingA, f.rec.BindingB
		f.release()
	}
	if a != here && b != here {
		return nil
	}
	return h.node.rebind(false, func(s bindings) { s.settle(here) })
}

// dropLinkTarget removes the target of a long symlink that is nowhere.
func (v *Volume) dropLinkTarget(id crypto.ID, ends ...*halfway) {
	if id.IsZero() {
		return
	}
	for _, h := range ends {
		if h.here && h.node == nil {
			return // nobody can tell
		}
		if h.node == nil || !h.node.IsSymlink() {
			continue
		}
		if content, err := h.node.readBackingLink(); err != nil || content == id.String() {
			return
		}
	}
	_ = v.backing.Unlinkat(v.links, id.String(), 0)
}
