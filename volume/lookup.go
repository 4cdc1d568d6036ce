package volume

import (
	"golang.org/x/sys/unix"
)

// Lookup finds an entry of the directory. Errors: unix.ENOENT if there is none.
func (n *Node) Lookup(name string) (*Node, Attr, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.end()
	d, err := n.use()
	if err != nil {
		return nil, Attr{}, err
	}
	defer d.release()
	e, broken, err := n.resolve(d, name)
	if err != nil {
		return nil, Attr{}, err
	}
	return n.found(d, place{parent: n, name: name, backing: e.backing}, broken)
}

// resolve gives the backing name for a plaintext name, whether there is such an
// entry or not. The names that listings invent for broken entries lead to those.
func (n *Node) resolve(d *descriptor, name string) (e entryName, broken bool, err error) {
	e, err = n.encode(name)
	if !isBrokenName(name) {
		return e, false, err
	}
	if err == nil {
		var st unix.Statx_t
		if n.vol.backing.Statx(d.fd, e.backing, &st) == nil {
			return e, false, nil // somebody did name a file so
		}
	}
	if backing, err := n.findBroken(d, name); err == nil {
		return entryName{plain: name, backing: backing}, true, nil
	}
	return e, false, err
}

func isBrokenName(name string) bool {
	return len(name) == len(brokenPrefix)+16 && name[:len(brokenPrefix)] == brokenPrefix
}

// found makes the node of a backing entry, with its attributes.
func (n *Node) found(d *descriptor, p place, broken bool) (*Node, Attr, error) {
	var st unix.Statx_t
	if err := n.vol.backing.Statx(d.fd, p.backing, &st); err != nil {
		return nil, Attr{}, err
	}
	if n.vol.isStray(d, p, &st, broken) && (n.vol.shared == nil || n.vol.shared.stillAt(d, p, &st)) {
		child := n.vol.strayNode(p, &st)
		a, err := child.attr(&st)
		return child, a, err
	}
	child := n.vol.intern(p, &st)
	child.verifyAt(p)
	if broken {
		child.undecipherable.Store(true)
	}
	a, err := child.attr(&st)
	return child, a, err
}
