package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Unlink removes an entry that is not a directory. A file that is still in use
// stays readable and writable until its node is forgotten.
func (n *Node) Unlink(name string) error {
	if err := n.vol.beginNames(); err != nil {
		return err
	}
	defer n.vol.endNames()
	v := n.vol
	if v.readOnly {
		return unix.EROFS
	}
	d, child, a, backing, err := n.entry(name)
	if err != nil {
		return err
	}
	defer d.release()
	if child.IsDir() {
		return unix.EISDIR
	}
	doom := child.doom(&a)
	defer doom.release()
	if doom.link != "" || isLongName(backing) {
		defer v.intend(intent{kind: intentUnlink, id: doom.linkID(), from: entryIn(n, backing)}).done()
	}
	if err := v.backing.Unlinkat(d.fd, backing, 0); err != nil {
		return err
	}
	v.dropLongName(d.fd, backing)
	doom.done(n, backing)
	return nil
}

// entry finds an entry that is to be removed. The caller releases d, the
// directory's descriptor.
func (n *Node) entry(name string) (d *descriptor, child *Node, a Attr, backing string, err error) {
	if d, err = n.use(); err != nil {
		return nil, nil, a, "", err
	}
	e, broken, err := n.resolve(d, name)
	if err == nil {
		child, a, err = n.found(d, place{parent: n, name: name, backing: e.backing}, broken)
	}
	if err != nil {
		d.release()
		return nil, nil, a, "", err
	}
	return d, child, a, e.backing, nil
}

// doomed is an inode that is about to lose a name.
type doomed struct {
	node   *Node
	last   bool        // it is the last one
	desc   *descriptor // held open, so that the inode outlives the name; nil if it cannot be
	ticket bool        // a data file's sidecar may go with it
	link   string      // long symlink: its file in .kmsfs/links
}

// doom prepares a node for the removal of one of its names. Whoever has the
// inode open goes on using it, so it is opened here, unless another name is
// known by which it can be found again. A file that cannot be opened can still
// be removed; its sidecar is left to fsck.
func (n *Node) doom(a *Attr) *doomed {
	x := &doomed{node: n, last: a.Nlink <= 1}
	if !x.last && len(n.known()) > 1 {
		return x
	}
	if n.IsRegular() {
		if f, err := n.openFile(false); err == nil {
			fresh := f.refresh() == nil
			f.content.RLock()
			x.desc, x.ticket = f.desc, x.last && !f.rec.Linked() && !f.accepted.Load() && fresh
			f.content.RUnlock()
			return x
		}
	} else if n.IsSymlink() && x.last {
		if content, err := n.readBackingLink(); err == nil && len(content) == linkIDLen {
			if _, err := crypto.ParseID(content); err == nil {
				x.link = content
			}
		}
	}
	x.desc, _ = n.hold()
	return x
}

// linkID is the ID of the symlink target that goes too, zero if none does.
func (x *doomed) linkID() crypto.ID {
	id, _ := crypto.ParseID(x.link)
	return id
}

// hold opens the inode of a node that is neither a directory nor a data file
// that can be read: enough to stat and change it. The caller releases it.
func (n *Node) hold() (*descriptor, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.desc == nil {
		fd, err := n.reopen(unix.O_PATH)
		if err != nil {
			return nil, err
		}
		n.desc = &descriptor{fd: fd, node: n, slot: -1}
	}
	n.desc.take()
	return n.desc, nil
}

// done says that the name is gone.
func (x *doomed) done(parent *Node, backing string) {
	n, v := x.node, x.node.vol
	n.dropPlace(parent, backing)
	if x.last {
		v.nodes.retire(n)
	}
	if x.link != "" {
		_ = v.backing.Unlinkat(v.links, x.link, 0)
	}
	if x.desc == nil || len(n.known()) > 0 {
		return
	}
	n.mu.Lock()
	n.pin(x.ticket)
	if n.ticket != nil {
		n.ticket.dir = parent
	}
	n.mu.Unlock()
	v.pinned.add(n)
}

func (x *doomed) release() {
	if x.desc == nil {
		return
	}
	x.desc.release()
	x.node.dropHold(x.desc)
}

// dropHold closes what hold opened if the removal did not happen.
func (n *Node) dropHold(d *descriptor) {
	n.mu.Lock()
	drop := n.desc == d && n.file == nil && !d.pinned && d.slot < 0 && d.refs.Load() == 0
	if drop {
		n.desc = nil
	}
	n.mu.Unlock()
	if drop {
		_ = n.vol.backing.Close(d.fd)
	}
}

// Rmdir removes an empty directory. Its record is set aside first, and put back
// if the directory turns out not to be empty.
func (n *Node) Rmdir(name string) error {
	if err := n.vol.beginNames(); err != nil {
		return err
	}
	defer n.vol.endNames()
	if n.vol.readOnly {
		return unix.EROFS
	}
	d, child, _, backing, err := n.entry(name)
	if err != nil {
		return err
	}
	defer d.release()
	if !child.IsDir() {
		return unix.ENOTDIR
	}
	id, err := crypto.NewID(n.vol.random)
	if err != nil {
		return err
	}
	defer n.vol.intend(intent{kind: intentRmdir, id: id, displaced: child.key.ino, from: entryIn(n, backing)}).done()
	if err := n.removeDir(d, child, backing, id); err != nil {
		return err
	}
	child.gone(n, backing)
	return nil
}

// gone says that a directory was removed. Who has it open still sees it, empty,
// until it is forgotten.
func (n *Node) gone(parent *Node, backing string) {
	n.dropPlace(parent, backing)
	n.vol.nodes.retire(n)
	n.mu.Lock()
	if n.dir != nil {
		n.vol.debts.forget(recordDebt(n.dir.id))
	}
	open := n.desc != nil
	if open {
		n.pin(false)
	}
	n.mu.Unlock()
	if open {
		n.vol.pinned.add(n)
	}
}

// removeDir removes the directory child, which is the entry backing of d. An
// intent of the caller says so; id is its own.
func (n *Node) removeDir(d *descriptor, child *Node, backing string, id crypto.ID) error {
	v := n.vol
	cd, err := child.use()
	if err != nil {
		return err
	}
	defer cd.release()
	if err := child.checkEmpty(cd); err != nil {
		return err
	}
	aside := tmpPrefix + id.String()
	hadRecord := true
	err = v.lifting(cd.fd, 0o700, child.BackingPath(), func() error {
		return v.renameNew(cd.fd, recordName, d.fd, aside, 0)
	})
	switch err {
	case nil:
	case unix.ENOENT:
		hadRecord = false
	default:
		return err
	}
	if err := v.backing.Unlinkat(d.fd, backing, unix.AT_REMOVEDIR); err != nil {
		if hadRecord {
			if back := v.lifting(cd.fd, 0o700, child.BackingPath(), func() error {
				return v.renameNew(d.fd, aside, cd.fd, recordName, 0)
			}); back != nil {
				v.log.Error("put back directory record", "path", child.Path(), "backing", child.BackingPath(), "error", back)
			}
		}
		return err
	}
	if hadRecord {
		_ = v.backing.Unlinkat(d.fd, aside, 0)
	}
	v.dropLongName(d.fd, backing)
	return nil
}

// checkEmpty makes sure that nothing but kmsfs's own things is in a directory,
// and removes those that an interrupted operation left.
func (n *Node) checkEmpty(d *descriptor) error {
	entries, err := n.listInside(d)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !n.isOwn(e.name) {
			return unix.ENOTEMPTY
		}
	}
	for _, e := range entries {
		if isTemporary(e.name) || isLongNameFile(e.name) {
			_ = n.vol.removeTemporary(d.fd, e.name)
		}
	}
	return nil
}

// listInside lists a directory, also where its owner may not read it.
func (n *Node) listInside(d *descriptor) ([]dirent, error) {
	entries, err := n.vol.listBacking(d.fd)
	if err != unix.EACCES {
		return entries, err
	}
	err = n.vol.lifted(d.fd, 0o700, n.BackingPath(), func() (e error) {
		entries, e = n.vol.listBacking(d.fd)
		return e
	})
	return entries, err
}
