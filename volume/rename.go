package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Rename flags, those of renameat2(2).
const (
	RenameNoReplace = unix.RENAME_NOREPLACE
	RenameExchange  = unix.RENAME_EXCHANGE
	RenameWhiteout  = unix.RENAME_WHITEOUT
)

// Rename moves the entry oldName of directory n to newName of newDir. What is
// there is replaced, or refused with RenameNoReplace, or exchanged with
// RenameExchange. RenameWhiteout leaves a character device 0:0 under the old
// name, as overlayfs wants it. The moved object gets its new binding before it
// moves and loses the old one after, so that a crash in between leaves it valid.
func (n *Node) Rename(oldName string, newDir *Node, newName string, flags uint32) error {
	if err := n.vol.beginNames(); err != nil {
		return err
	}
	defer n.vol.endNames()
	if n.vol.readOnly {
		return unix.EROFS
	}
	if flags&^(RenameNoReplace|RenameExchange|RenameWhiteout) != 0 || flags&RenameExchange != 0 && flags != RenameExchange {
		return unix.EINVAL
	}
	m := move{vol: n.vol, flags: flags}
	defer m.release()
	if err := m.from.open(n, oldName); err != nil {
		return err
	}
	if err := m.to.open(newDir, newName); err != nil {
		return err
	}
	if err := m.from.find(); err != nil {
		return err
	}
	err := m.to.find()
	switch {
	case err == unix.ENOENT && flags&RenameExchange == 0:
	case err != nil:
		return err
	case flags&RenameNoReplace != 0:
		return unix.EEXIST
	case m.to.node == m.from.node:
		return nil // two names of one inode: rename(2) does nothing
	}
	if m.to.broken || (m.from.broken && flags&RenameExchange != 0) {
		return unix.EIO
	}
	return m.run()
}

// move is a rename under way.
type move struct {
	vol      *Volume
	flags    uint32
	from, to end
	intent   *armedIntent
}

// end is one side of a rename: a name in a directory, and what is there.
type end struct {
	dir    *Node
	desc   *descriptor
	dirID  crypto.ID
	name   entryName
	broken bool
	node   *Node // nil if there is nothing
	attr   Attr
}

func (e *end) open(dir *Node, name string) error {
	e.dir = dir
	d, err := dir.use()
	if err != nil {
		return err
	}
	e.desc = d
	if e.dirID, err = dir.dirID(); err != nil {
		return err
	}
	e.name, e.broken, err = dir.resolve(d, name)
	return err
}

func (e *end) find() (err error) {
	e.node, e.attr, err = e.dir.found(e.desc, e.place(), e.broken)
	return err
}

func (e *end) place() place {
	return place{parent: e.dir, name: e.name.plain, backing: e.name.backing}
}

func (m *move) release() {
	for _, e := range []*end{&m.from, &m.to} {
		if e.desc != nil {
			e.desc.release()
		}
	}
}

func (m *move) run() error {
	exchange := m.flags&RenameExchange != 0
	if !exchange && m.to.node != nil {
		if m.from.node.IsDir() && !m.to.node.IsDir() {
			return unix.ENOTDIR
		}
		if !m.from.node.IsDir() && m.to.node.IsDir() {
			return unix.EISDIR
		}
	}
	var doom *doomed
	in := intent{
		kind: intentRename, moved: m.from.node.key.ino,
		from: entryIn(m.from.dir, m.from.name.backing), to: entryIn(m.to.dir, m.to.name.backing),
	}
	if m.flags&RenameWhiteout != 0 {
		in.flags = intentWhiteout
	}
	if m.to.node != nil && !exchange {
		if m.to.node.IsDir() {
			in.displaced = m.to.node.key.ino
			var err error
			if in.id, err = crypto.NewID(m.vol.random); err != nil {
				return err
			}
		} else {
			doom = m.to.node.doom(&m.to.attr)
			defer doom.release()
			in.id = doom.linkID()
		}
	}
	m.intent = m.vol.intend(in)
	defer m.intent.done()
	err := m.to.dir.storeLongName(m.to.desc.fd, m.to.name)
	if err == nil {
		err = m.to.dir.payForArrival(m.from.node, m.from.dir, m.to.name.backing)
	}
	if err == nil && exchange {
		err = m.from.dir.payForArrival(m.to.node, m.to.dir, m.from.name.backing)
	}
	if err != nil {
		if m.to.node == nil {
			m.vol.dropLongName(m.to.desc.fd, m.to.name.backing)
		}
		return err
	}
	err = m.bind(m.from.node, &m.from, &m.to)
	if err == nil && exchange {
		if err = m.bind(m.to.node, &m.to, &m.from); err != nil {
			m.unbind(m.to.node, &m.to)
		}
	}
	if err == nil {
		m.oweMoves(exchange)
		err = m.carryOut(exchange, doom, in.id)
		m.oweMoves(exchange)
	}
	if err != nil {
		m.unbind(m.from.node, &m.from)
		if exchange {
			m.unbind(m.to.node, &m.to)
		} else if m.to.node == nil {
			m.vol.dropLongName(m.to.desc.fd, m.to.name.backing)
		}
		return err
	}
	return nil
}

// oweMoves notes what leaves its place.
func (m *move) oweMoves(exchange bool) {
	m.from.node.oweMove(m.from.place())
	if exchange {
		m.to.node.oweMove(m.to.place())
	}
}

// carryOut renames, tells the nodes where they are, and clears old bindings.
func (m *move) carryOut(exchange bool, doom *doomed, id crypto.ID) error {
	k := m.vol.backing
	from, to := &m.from, &m.to
	whiteout := uint(m.flags & RenameWhiteout)
	switch {
	case exchange:
		err := k.Renameat2(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, unix.RENAME_EXCHANGE)
		if err != nil {
			return err
		}
		from.node.movePlace(from.dir, from.name.backing, to.place())
		to.node.movePlace(to.dir, to.name.backing, from.place())
		m.unbind(to.node, from)
	case to.node != nil && to.node.IsDir():
		if err := m.replaceDir(id); err != nil {
			return err
		}
		from.node.movePlace(from.dir, from.name.backing, to.place())
		if whiteout != 0 { // not in one step: the old name was needed
			// It has moved: a whiteout that cannot be made now is made later.
			m.intent.leave(k.Mknodat(from.desc.fd, from.name.backing, unix.S_IFCHR, 0))
		}
	case to.node != nil:
		if err := k.Renameat2(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, whiteout); err != nil {
			return err
		}
		doom.done(to.dir, to.name.backing)
		from.node.movePlace(from.dir, from.name.backing, to.place())
	default:
		err := m.vol.renameNew(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, whiteout)
		if err != nil {
			return err
		}
		from.node.movePlace(from.dir, from.name.backing, to.place())
	}
	if !exchange && whiteout == 0 && (from.dir != to.dir || from.name.backing != to.name.backing) {
		m.vol.dropLongName(from.desc.fd, from.name.backing)
	}
	m.unbind(from.node, to)
	m.vol.moved(from.node)
	if exchange {
		m.vol.moved(to.node)
	}
	return nil
}

// replaceDir puts a directory in the place of an empty one. The backing store
// does not see it as empty, since its record is in it: the two are exchanged and
// the displaced one removed. It is bound to both places, so that a crash leaves
// an empty directory under the old name.
func (m *move) replaceDir(id crypto.ID) error {
	from, to := &m.from, &m.to
	cd, err := to.node.use()
	if err != nil {
		return err
	}
	err = to.node.checkEmpty(cd)
	cd.release()
	if err != nil {
		return err
	}
	if err := m.bind(to.node, to, from); err != nil {
		return err
	}
	err = m.vol.backing.Renameat2(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // a store without it: for a moment there is none
		if err = to.dir.removeDir(to.desc, to.node, to.name.backing, id); err == nil {
			to.node.gone(to.dir, to.name.backing)
			return m.vol.backing.Renameat2(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, 0)
		}
	}
	if err != nil {
		m.unbind(to.node, to)
		return err
	}
	if err := from.dir.removeDir(from.desc, to.node, from.name.backing, id); err != nil {
		// Somebody wrote into it behind our back: undo.
		_ = m.vol.backing.Renameat2(from.desc.fd, from.name.backing, to.desc.fd, to.name.backing, unix.RENAME_EXCHANGE)
		m.unbind(to.node, to)
		return err
	}
	to.node.gone(to.dir, to.name.backing)
	return nil
}

// renameNew renames, with flags besides RENAME_NOREPLACE, to a name that nothing
// has; unix.EEXIST if something does.
// Stores that do not know RENAME_NOREPLACE answer EINVAL: there the kernel's lock
// on the directory, of the one mount that writes, must do.
func (v *Volume) renameNew(olddir int, oldname string, newdir int, newname string, flags uint) error {
	err := v.backing.Renameat2(olddir, oldname, newdir, newname, unix.RENAME_NOREPLACE|flags)
	if err != unix.EINVAL {
		return err
	}
	var st unix.Statx_t
	switch err := v.backing.Statx(newdir, newname, &st); err {
	case unix.ENOENT:
		return v.backing.Renameat2(olddir, oldname, newdir, newname, flags)
	case nil:
		return unix.EEXIST
	default:
		return err
	}
}

// bind adds to a node's record that it may be at to as well as at from.
func (m *move) bind(n *Node, from, to *end) error {
	current := m.vol.binder.Binding(from.dirID, from.name.plain)
	next := m.vol.binder.Binding(to.dirID, to.name.plain)
	return n.rebind(from.broken, func(b bindings) { b.add(current, next) })
}

// unbind leaves in a node's record only the place at. A failure leaves two
// places of which one is right, and is tried again with the next rename.
func (m *move) unbind(n *Node, at *end) {
	current := m.vol.binder.Binding(at.dirID, at.name.plain)
	if err := n.rebind(at.broken, func(b bindings) { b.settle(current) }); err != nil {
		m.vol.log.Warn("old binding left", "path", n.Path(), "error", err)
		m.intent.leave(err)
	}
}

// rebind changes the bindings of a file or directory; other kinds have none.
func (n *Node) rebind(broken bool, change func(bindings)) error {
	if broken {
		return unix.EIO
	}
	switch n.mode {
	case unix.S_IFDIR:
		return n.rewriteDirRecord(func(r *crypto.DirRecord) { change(dirBindings(r)) })
	case unix.S_IFREG:
		f, err := n.openFile(true)
		if err != nil {
			return err
		}
		defer f.release()
		return f.rewriteRecord(func(r *crypto.Record) bool {
			if r.Linked() {
				return false
			}
			before := *r
			change(fileBindings(r))
			return *r != before
		})
	}
	return nil
}
