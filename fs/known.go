package fs

import (
	"maps"
	"slices"
	"sync"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"kmsfs/volume"
)

// knownInodes are those that the kernel knows, and may cache something of, by the
// number that it calls them by. The kernel counts how often it was told of one,
// and says so when it forgets.
type knownInodes struct {
	mu      sync.Mutex
	byID    map[uint64]*knownInode
	byInode map[inodeKey]uint64
}

type knownInode struct {
	key   inodeKey
	times uint64 // told
}

// inodeKey is what volume.Node calls Ino and Generation.
type inodeKey struct{ ino, gen uint64 }

// told notes an entry that the kernel is answered with.
func (k *knownInodes) told(e *fuse.EntryOut) {
	if e.NodeId == 0 {
		return // there is no such entry
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.byID[e.NodeId]
	if i == nil {
		if k.byID == nil {
			k.byID, k.byInode = make(map[uint64]*knownInode), make(map[inodeKey]uint64)
		}
		i = &knownInode{key: inodeKey{e.Ino, e.Generation}}
		k.byID[e.NodeId] = i
		k.byInode[i.key] = e.NodeId
	}
	i.times++
}

// forgotten notes that the kernel forgot an inode that many times, and tells whether
// it does not know it any more.
func (k *knownInodes) forgotten(id, times uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := k.byID[id]
	if i == nil {
		return true
	}
	if i.times > times {
		i.times -= times
		return false
	}
	delete(k.byID, id)
	if k.byInode[i.key] == id {
		delete(k.byInode, i.key)
	}
	return true
}

// key is what volume.Node calls the inode of a number, or false.
func (k *knownInodes) key(id uint64) (inodeKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if i := k.byID[id]; i != nil {
		return i.key, true
	}
	return inodeKey{}, false
}

// find returns the kernel's number of a node, or false.
func (k *knownInodes) find(n *volume.Node) (id uint64, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, ok = k.byInode[inodeKey{n.Ino(), n.Generation()}]
	return id, ok
}

// all returns all numbers.
func (k *knownInodes) all() []uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Keys(k.byID))
}

// DropFile is volume.Cache's: the kernel sends the pages that it has to write,
// waits for the answers, and drops all it has of the file.
func (m *Mount) DropFile(n *volume.Node) {
	if id, ok := m.known.find(n); ok {
		m.dropInode(id)
	}
}

const (
	rootID = 1 // the kernel's number of the root
	// dropWorkers is how many inodes are dropped at once: each waits for its writes.
	dropWorkers = 8
	// dropPasses bounds how often it is looked for pages that were written while
	// others were dropped. Since no new call of write(2) succeeds, two are enough
	// but for calls that write a lot.
	dropPasses = 100
)

// DropAll is volume.Cache's. The first pass makes the kernel ask for attributes
// before each write, and be refused; a later one finds what was being written.
func (m *Mount) DropAll() {
	for range dropPasses {
		before := m.counts.writebacks.Load()
		m.dropInodes(append(m.known.all(), rootID))
		if m.counts.writebacks.Load() == before {
			break
		}
	}
	m.dropEntries(m.root.EmbeddedInode())
}

func (m *Mount) dropInodes(ids []uint64) {
	var workers sync.WaitGroup
	next := make(chan uint64)
	for range dropWorkers {
		workers.Go(func() {
			for id := range next {
				m.dropInode(id)
			}
		})
	}
	for _, id := range ids {
		next <- id
	}
	close(next)
	workers.Wait()
}

// dropEntries makes the kernel forget the names below a directory: paths lead
// nowhere without asking.
func (m *Mount) dropEntries(dir *fusefs.Inode) {
	for name, child := range dir.Children() {
		if child.IsDir() {
			m.dropEntries(child)
		}
		dir.NotifyEntry(name) // ENOENT where it is not cached
	}
}

// dropInode has everything written back and dropped that the kernel caches of an
// inode: content, attributes, a symlink's target, a directory's list.
func (m *Mount) dropInode(id uint64) {
	switch st := m.server.InodeNotify(id, 0, 0); st {
	case fuse.OK, fuse.ENOENT: // ENOENT: it is not cached
	default:
		select {
		case <-m.ended: // with the mount all is gone
		default:
			m.log.Error("the kernel does not drop what it caches", "inode", id, "error", st)
		}
	}
}
