package volume

import (
	"fmt"
	"maps"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// debts is what was written in this mount without being made durable, though a
// file cannot be read without it: sidecars and directory records. The first
// fsync that depends on one pays for it.
type debts struct {
	mu       sync.Mutex
	sidecars map[crypto.ID]struct{}
	dirs     map[crypto.ID]struct{}
}

func (b *debts) oweSidecar(id crypto.ID) { b.owe(&b.sidecars, id) }
func (b *debts) oweDir(id crypto.ID)     { b.owe(&b.dirs, id) }

func (b *debts) owe(set *map[crypto.ID]struct{}, id crypto.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *set == nil {
		*set = make(map[crypto.ID]struct{})
	}
	(*set)[id] = struct{}{}
}

func (b *debts) owes(set *map[crypto.ID]struct{}, id crypto.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := (*set)[id]
	return ok
}

func (b *debts) paid(set *map[crypto.ID]struct{}, id crypto.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(*set, id)
}

// size is how many debts there are.
func (b *debts) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sidecars) + len(b.dirs)
}

// clear forgets all debts, once a sync of the whole store has paid them. Only
// those of before is known to be: what came later stays.
func (b *debts) clear(before *debts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range before.sidecars {
		delete(b.sidecars, id)
	}
	for id := range before.dirs {
		delete(b.dirs, id)
	}
}

// Sync makes the node's content and attributes durable, with all that is needed
// to read it again: its sidecar, and the records of the directories above.
func (n *Node) Sync(dataOnly bool) error {
	if err := n.vol.begin(writingBack); err != nil {
		return err
	}
	defer n.vol.end()
	if n.vol.readOnly {
		return nil
	}
	k := n.vol.backing
	switch n.mode {
	case unix.S_IFREG:
		f, err := n.openFile(false)
		if err != nil {
			return err
		}
		defer f.release()
		if dataOnly {
			err = k.Fdatasync(f.desc.fd)
		} else {
			err = k.Fsync(f.desc.fd)
		}
		if err != nil {
			return err
		}
		if err := n.vol.paySidecar(f.id); err != nil {
			return err
		}
		return n.payParents()
	case unix.S_IFDIR:
		if err := n.syncDir(); err != nil {
			return err
		}
		if err := n.payDir(); err != nil {
			return err
		}
		return n.payParents()
	}
	return n.payParents()
}

func (v *Volume) paySidecar(id crypto.ID) error {
	if !v.debts.owes(&v.debts.sidecars, id) {
		return nil
	}
	if err := v.sidecars.sync(id); err != nil {
		return fmt.Errorf("sync sidecar %s: %w", sidecarPath(id), err)
	}
	v.debts.paid(&v.debts.sidecars, id)
	return nil
}

// payParents makes the records of the directories above durable, where they
// were written in this mount.
func (n *Node) payParents() error {
	p, ok := n.at()
	for ok {
		if err := p.parent.payDir(); err != nil {
			return err
		}
		p, ok = p.parent.at()
	}
	return nil
}

// payDir makes the directory's record durable, with its name.
func (n *Node) payDir() error {
	if n == n.vol.root || n.vol.debts.size() == 0 {
		return nil
	}
	id, err := n.dirID()
	if err != nil {
		return err
	}
	if !n.vol.debts.owes(&n.vol.debts.dirs, id) {
		return nil
	}
	if err := n.syncRecord(); err != nil {
		return fmt.Errorf("sync directory record of %q: %w", n.Path(), err)
	}
	if p, ok := n.at(); ok {
		if err := p.parent.syncDir(); err != nil {
			return err
		}
	}
	n.vol.debts.paid(&n.vol.debts.dirs, id)
	return nil
}

func (n *Node) syncRecord() error {
	d, err := n.use()
	if err != nil {
		return err
	}
	defer d.release()
	k := n.vol.backing
	fd, err := n.openInside(d, recordName, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer k.Close(fd)
	if err := k.Fsync(fd); err != nil {
		return err
	}
	return n.syncDir()
}

// syncDir makes the directory's entries durable.
func (n *Node) syncDir() error {
	d, err := n.use()
	if err != nil {
		return err
	}
	defer d.release()
	k := n.vol.backing
	fd, err := n.openInside(d, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer k.Close(fd)
	return k.Fsync(fd)
}

// syncAll makes everything on the backing store durable.
func (v *Volume) syncAll() error {
	v.debts.mu.Lock()
	before := &debts{sidecars: maps.Clone(v.debts.sidecars), dirs: maps.Clone(v.debts.dirs)}
	v.debts.mu.Unlock()
	if err := v.backing.Syncfs(v.rootDesc.fd); err != nil {
		return fmt.Errorf("sync backing store: %w", err)
	}
	v.debts.clear(before)
	return nil
}
