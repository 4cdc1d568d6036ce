package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Link makes target known under another name of directory n. A data file is
// marked first: from then on no name binds it.
func (n *Node) Link(target *Node, name string) (Attr, error) {
	if err := n.vol.beginNames(); err != nil {
		return Attr{}, err
	}
	defer n.vol.endNames()
	v := n.vol
	if v.readOnly {
		return Attr{}, unix.EROFS
	}
	if target.IsDir() {
		return Attr{}, unix.EPERM
	}
	p, ok := target.at()
	if !ok {
		if target.IsRegular() {
			return n.linkTemp(target, name)
		}
		return Attr{}, unix.ENOENT
	}
	e, err := n.encode(name)
	if err != nil {
		return Attr{}, err
	}
	linked, err := target.isLinked()
	if err != nil {
		return Attr{}, err
	}
	first := intent{kind: intentLink, from: entryIn(p.parent, p.backing), to: entryIn(n, e.backing)}
	if !linked {
		first.flags = intentFirst
	}
	in := v.intend(first)
	defer in.done()
	if !linked {
		if err := target.markLinked(); err != nil {
			in.leave(err) // it may be marked late
			return Attr{}, err
		}
	}
	_, a, err := n.makeEntry(name, making{intended: true, make: func(d *descriptor, backing string) error {
		from, err := p.parent.use()
		if err != nil {
			return err
		}
		defer from.release()
		if err := n.payForArrival(target, p.parent, backing); err != nil {
			return err
		}
		err = v.backing.Linkat(from.fd, p.backing, d.fd, backing)
		v.moved(target)
		return err
	}})
	if err != nil && !linked {
		in.leave(target.unmarkLinked(p))
	}
	return a, err
}

// isLinked tells whether a file bears the mark already; what is no file needs none.
func (n *Node) isLinked() (bool, error) {
	if !n.IsRegular() {
		return true, nil
	}
	f, err := n.openFile(false)
	if err != nil {
		return false, err
	}
	defer f.release()
	if err := f.refresh(); err != nil {
		return false, err
	}
	f.content.RLock()
	defer f.content.RUnlock()
	return f.rec.Linked(), nil
}

// unmarkLinked binds a file to its name again that got no second one after all.
func (n *Node) unmarkLinked(only place) error {
	dir, err := only.parent.dirID()
	if err != nil {
		return err
	}
	a, err := n.attrNow()
	if err != nil || a.Nlink != 1 {
		return err
	}
	f, err := n.openFile(true)
	if err != nil {
		return err
	}
	defer f.release()
	return f.rewriteRecord(func(r *crypto.Record) bool {
		if !r.Linked() {
			return false
		}
		r.Flags &^= crypto.FlagLinked
		fileBindings(r).settle(n.vol.binder.Binding(dir, only.name))
		return true
	})
}

// markLinked sets the flag that a file was linked more than once.
func (n *Node) markLinked() error {
	f, err := n.openFile(true)
	if err != nil {
		return err
	}
	defer f.release()
	return f.rewriteRecord(func(r *crypto.Record) bool {
		if r.Linked() {
			return false
		}
		r.Flags |= crypto.FlagLinked
		r.BindingA, r.BindingB = [16]byte{}, [16]byte{}
		return true
	})
}
