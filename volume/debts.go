package volume

import (
	"maps"
	"sync"

	"kmsfs/crypto"
)

// debts is what was written in this mount without being made durable, though a
// file or directory cannot be read without it. The first fsync that depends on
// one pays for it. What was written by a mount that was killed is nobody's debt:
// the next one syncs the whole store before it serves.
type debts struct {
	mu  sync.Mutex
	seq uint64
	all map[debtKey]debt
}

// debtKey names a debt; what does not belong to its kind is empty.
type debtKey struct {
	kind debtKind
	id   crypto.ID // of the file or directory
	dir  *Node     // that a long name is in
	name string    // backing name whose whole is in a file beside it
}

type debtKind uint8

const (
	debtSidecar debtKind = iota
	debtRecord           // of a directory
	debtName             // the file of a long name
	debtMove             // of a file that was never synced, from where it could not be read
)

// debt is one write. Another one of the same place is another debt.
type debt struct {
	seq uint64
	dir *Node // debtRecord: the directory
}

func sidecarDebt(id crypto.ID) debtKey { return debtKey{kind: debtSidecar, id: id} }
func recordDebt(id crypto.ID) debtKey  { return debtKey{kind: debtRecord, id: id} }
func moveDebt(id crypto.ID) debtKey    { return debtKey{kind: debtMove, id: id} }
func nameDebt(dir *Node, backing string) debtKey {
	return debtKey{kind: debtName, dir: dir, name: backing}
}

// owe notes a write; dir is the directory whose record it is.
func (b *debts) owe(key debtKey, dir *Node) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all == nil {
		b.all = make(map[debtKey]debt)
	}
	b.seq++
	b.all[key] = debt{b.seq, dir}
}

// has tells whether there is such a debt.
func (b *debts) has(key debtKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.all[key]
	return ok
}

// pay has sync make a debt durable, if there is one.
func (b *debts) pay(key debtKey, sync func() error) error {
	b.mu.Lock()
	d, ok := b.all[key]
	b.mu.Unlock()
	if !ok {
		return nil
	}
	if err := sync(); err != nil {
		return err
	}
	b.clear(map[debtKey]debt{key: d})
	return nil
}

// forget drops a debt whose object is gone.
func (b *debts) forget(key debtKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.all, key)
}

// snapshot is what is owed now.
func (b *debts) snapshot() map[debtKey]debt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.all)
}

// within is the debts that a directory's entries cannot do without: the records
// of the directories in it and its long names.
func (b *debts) within(dir *Node) map[debtKey]debt {
	b.mu.Lock()
	defer b.mu.Unlock()
	owed := make(map[debtKey]debt)
	for key, d := range b.all {
		switch key.kind {
		case debtName:
			if key.dir == dir {
				owed[key] = d
			}
		case debtRecord:
			if p, ok := d.dir.at(); ok && p.parent == dir {
				owed[key] = d
			}
		}
	}
	return owed
}

// size is how many debts there are.
func (b *debts) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.all)
}

// clear forgets debts that were paid. What was written since stays owed.
func (b *debts) clear(paid map[debtKey]debt) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, d := range paid {
		if b.all[key] == d {
			delete(b.all, key)
		}
	}
}
