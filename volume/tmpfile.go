package volume

import (
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// CreateTemp makes a regular file without a name, which belongs to directory n
// only in that it inherits what new entries there do. Link gives it a name; else
// it goes when it is forgotten. unix.EOPNOTSUPP where the store cannot do it.
func (n *Node) CreateTemp(mode uint32, owner Owner) (*Node, Attr, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return nil, Attr{}, err
	}
	defer n.vol.end()
	v := n.vol
	if v.readOnly {
		return nil, Attr{}, unix.EROFS
	}
	key, err := v.pool.take()
	if err != nil {
		return nil, Attr{}, err
	}
	child, a, err := n.createTemp(mode, owner, key)
	if err != nil {
		v.pool.put(key)
	}
	return child, a, err
}

func (n *Node) createTemp(mode uint32, owner Owner, key newFileKey) (*Node, Attr, error) {
	v := n.vol
	d, err := n.use()
	if err != nil {
		return nil, Attr{}, err
	}
	defer d.release()
	fd, err := v.backing.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR, mode&0o7777)
	if err != nil {
		return nil, Attr{}, err
	}
	f, st, err := n.initFile(fd, [16]byte{}, mode, owner, key)
	if err != nil {
		v.backing.Close(fd)
		return nil, Attr{}, err
	}
	child := v.internNew(place{}, &st)
	child.capability.noteAbsent(0)
	child.mu.Lock()
	f.node = child
	child.adopt(f, fd, true)
	child.pin(true)
	child.mu.Unlock()
	v.pinned.add(child)
	v.keys.put(key.id, key.keys, child)
	a, err := child.attr(&st)
	return child, a, err
}

// pin keeps the descriptor of a node without a name out of the bounded set:
// nothing could open it again. With ticket its sidecar goes when it is
// forgotten. The caller holds n.mu.
func (n *Node) pin(ticket bool) {
	n.desc.pinned = true
	if ticket {
		n.ticket = &reapTicket{id: n.file.id}
	}
	n.vol.descriptors.remove(n.desc)
}

// unpin takes a node back that was given a name.
func (n *Node) unpin() {
	n.mu.Lock()
	n.desc.pinned = false
	n.ticket = nil
	n.vol.descriptors.add(n.desc)
	n.mu.Unlock()
	n.vol.pinned.remove(n)
}

// linkTemp gives a file of CreateTemp its first name. It is bound to it before,
// as any other file is.
func (n *Node) linkTemp(temp *Node, name string) (Attr, error) {
	f, err := temp.openFile(true)
	if err != nil {
		return Attr{}, err
	}
	defer f.release()
	dir, err := n.dirID()
	if err != nil {
		return Attr{}, err
	}
	binding := n.vol.binder.Binding(dir, name)
	if err := f.rewriteRecord(func(r *crypto.Record) bool {
		fileBindings(r).settle(binding)
		return true
	}); err != nil {
		return Attr{}, err
	}
	_, a, err := n.makeEntry(name, making{make: func(d *descriptor, backing string) error {
		return n.vol.backing.LinkDescriptor(f.desc.fd, d.fd, backing)
	}})
	if err != nil {
		return Attr{}, fmt.Errorf("link temporary file: %w", err)
	}
	temp.unpin()
	return a, nil
}
