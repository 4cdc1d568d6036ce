package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Link makes target known under another name of directory n. A data file is
// marked first: from then on no name binds it.
func (n *Node) Link(target *Node, name string) (Attr, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return Attr{}, err
	}
	defer n.vol.end()
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
	if target.IsRegular() {
		if err := target.markLinked(); err != nil {
			return Attr{}, err
		}
	}
	_, a, err := n.makeEntry(name, func(d *descriptor, e entryName) error {
		from, err := p.parent.use()
		if err != nil {
			return err
		}
		defer from.release()
		return v.backing.Linkat(from.fd, p.backing, d.fd, e.backing)
	})
	return a, err
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
