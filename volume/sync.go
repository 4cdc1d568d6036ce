package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

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
		if late := n.vol.late.of(n.key.ino); late != nil {
			return late.cause
		}
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
		if err := n.payMove(f.id); err != nil {
			return err
		}
		return n.payParents()
	case unix.S_IFDIR:
		if err := n.syncEntries(); err != nil {
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
	return v.debts.pay(sidecarDebt(id), func() error {
		if err := v.sidecars.sync(id); err != nil {
			return fmt.Errorf("sync sidecar %s: %w", sidecarPath(id), err)
		}
		return nil
	})
}

// payParents makes durable what the node's names and the directories above it need,
// where it was written in this mount.
func (n *Node) payParents() error {
	for _, p := range n.known() {
		if err := p.pay(); err != nil {
			return err
		}
		for above := range p.parent.climb() {
			if n.vol.debts.size() == 0 {
				return nil
			}
			if err := above.pay(); err != nil {
				return err
			}
		}
	}
	return nil
}

// pay makes durable what the place and the directory that it is in need.
func (p place) pay() error {
	if err := p.parent.payName(p.backing); err != nil {
		return err
	}
	return p.parent.payDir()
}

// payName makes the file of a long name in the directory durable.
func (n *Node) payName(backing string) error {
	if !isLongName(backing) {
		return nil
	}
	return n.vol.debts.pay(nameDebt(n, backing), func() error {
		err := n.syncInside(backing+crypto.LongSuffix, unix.O_RDONLY)
		if err == unix.ENOENT { // renamed or removed meanwhile
			return nil
		}
		if err != nil {
			return fmt.Errorf("sync long name in %q: %w", n.Path(), err)
		}
		return n.syncDir()
	})
}

// payForArrival makes durable what n needs for an entry that moves to it from
// another directory, or gets a long name: content that was synced long ago must
// not become unreachable because the record of a new directory, or the file of a
// name, did not reach the disk with the move. A file that was never synced has no
// such content.
func (n *Node) payForArrival(moved, from *Node, backing string) error {
	if _, fresh := moved.fresh(); fresh || n.vol.debts.size() == 0 {
		return nil
	}
	if err := n.payName(backing); err != nil {
		return err
	}
	if n == from {
		return nil
	}
	if err := n.payDir(); err != nil {
		return err
	}
	return n.payParents()
}

// fresh is the ID of a data file that was made in this mount and never synced.
func (n *Node) fresh() (id crypto.ID, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil && n.vol.debts.has(sidecarDebt(n.file.id)) {
		return n.file.id, true
	}
	return id, false
}

// oweMove notes that a file leaves p, before it does and again when it has. A power
// cut could bring it back there, and what is synced of it meanwhile would have a
// name that nobody can read, if that or the record of a directory above did not last.
// For a directory that nothing was synced of, payDir sees to that.
func (n *Node) oweMove(p place) {
	if id, ok := n.fresh(); ok && p.owes() {
		n.vol.debts.owe(moveDebt(id), nil)
	}
}

// owes tells whether the place could not be read if the power were cut now.
func (p place) owes() bool {
	if p.isDue() {
		return true
	}
	for above := range p.parent.climb() {
		if above.isDue() {
			return true
		}
	}
	return false
}

// isDue tells whether there is something that pay would make durable.
func (p place) isDue() bool {
	b := &p.parent.vol.debts
	id, err := p.parent.dirID()
	return err != nil || b.has(recordDebt(id)) || b.has(nameDebt(p.parent, p.backing))
}

// payMove makes it durable that the file with that ID is where it is.
func (n *Node) payMove(id crypto.ID) error {
	return n.vol.debts.pay(moveDebt(id), func() error {
		for _, p := range n.known() {
			if err := p.parent.syncDir(); err != nil {
				return fmt.Errorf("sync directory that %q was moved to: %w", n.Path(), err)
			}
		}
		return nil
	})
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
	return n.vol.debts.pay(recordDebt(id), func() error {
		if err := n.syncRecord(); err != nil {
			return err
		}
		if p, ok := n.at(); ok {
			return p.parent.syncDir()
		}
		return nil
	})
}

// syncEntries makes the directory's entries durable, with what they cannot be used
// without: who makes a directory and syncs the one above it finds both after a
// power cut.
func (n *Node) syncEntries() error {
	owed := n.vol.debts.within(n)
	for key, d := range owed {
		var err error
		if key.kind == debtName {
			err = n.syncInside(key.name+crypto.LongSuffix, unix.O_RDONLY)
		} else {
			err = d.dir.syncRecord()
		}
		if err != nil && !errors.Is(err, unix.ENOENT) { // it may be gone meanwhile
			return err
		}
	}
	if err := n.syncDir(); err != nil {
		return err
	}
	n.vol.debts.clear(owed)
	return nil
}

func (n *Node) syncRecord() error {
	err := n.syncInside(recordName, unix.O_RDONLY)
	if err == nil {
		err = n.syncDir()
	}
	if err != nil {
		return fmt.Errorf("sync directory record of %q: %w", n.Path(), err)
	}
	return nil
}

// syncDir makes the directory's entries durable.
func (n *Node) syncDir() error { return n.syncInside(".", unix.O_RDONLY|unix.O_DIRECTORY) }

// syncInside makes durable what name is in the directory.
func (n *Node) syncInside(name string, flags int) error {
	d, err := n.use()
	if err != nil {
		return err
	}
	defer d.release()
	k := n.vol.backing
	fd, err := n.openInside(d, name, flags)
	if err != nil {
		return err
	}
	defer k.Close(fd)
	return k.Fsync(fd)
}

// syncAll makes everything on the backing store durable.
func (v *Volume) syncAll() error {
	before := v.debts.snapshot()
	if err := v.backing.Syncfs(v.rootDesc.fd); err != nil {
		return fmt.Errorf("sync backing store: %w", err)
	}
	v.debts.clear(before)
	return nil
}
