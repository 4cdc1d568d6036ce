package volume

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"golang.org/x/sys/unix"
)

// Node is an inode of the volume: a file, directory, symbolic link or special
// file. Nodes are found by Lookup and made by Create and its relatives. For one
// inode there is one Node as long as anybody holds it; all methods are safe for
// concurrent use. A Node owns its backing descriptor, its keys and its write
// state; whoever opens it owns nothing.
type Node struct {
	vol  *Volume
	key  nodeKey
	mode uint32 // file type bits (S_IFMT)

	// undecipherable marks an entry whose name does not decrypt: it can be
	// listed, stat'ed and removed, and nothing else.
	undecipherable atomic.Bool
	stray          bool // see isStray

	// places are the names it is known by; none for the root and once
	// unlinked. The slice is replaced, never changed, so that it can be read
	// under any lock.
	places atomic.Pointer[[]place]

	capability capability
	listed     atomic.Pointer[[]uint64] // directories: see NoteListed

	mu     sync.Mutex
	dir    *directory  // directories: ID, once the record has been verified
	desc   *descriptor // open backing descriptor, or nil
	file   *file       // data files: state that goes with desc
	ticket *reapTicket // unlinked files: the sidecar to remove once forgotten
}

// nodeKey tells inodes apart, also when the backing store uses a number again:
// the birth time differs then.
type nodeKey struct {
	ino uint64
	gen uint64 // birth time, nanoseconds; 0 where the store has none
}

func keyOf(st *unix.Statx_t) nodeKey {
	return nodeKey{ino: st.Ino, gen: uint64(st.Btime.Sec)*1e9 + uint64(st.Btime.Nsec)}
}

// place is one name of a node.
type place struct {
	parent  *Node
	name    string // plaintext
	backing string // name in the backing directory
}

// nodeTable keeps each node single. It holds them weakly: a node that nobody
// holds disappears by itself, and with it its entry.
type nodeTable struct {
	mu sync.Mutex
	m  map[nodeKey]weak.Pointer[Node]
}

// intern returns the node of the inode that st describes, found at p.
func (v *Volume) intern(p place, st *unix.Statx_t) *Node {
	key := keyOf(st)
	kind := uint32(st.Mode) & unix.S_IFMT
	v.nodes.mu.Lock()
	n := v.nodes.m[key].Value()
	if n == nil || n.mode != kind {
		n = &Node{vol: v, key: key, mode: kind}
		v.nodes.m[key] = weak.Make(n)
		runtime.AddCleanup(n, v.nodes.drop, key)
	}
	v.nodes.mu.Unlock()
	n.addPlace(p)
	return n
}

// find returns the node of an inode, or nil.
func (t *nodeTable) find(key nodeKey) *Node {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[key].Value()
}

// InodeOf is what Ino and Generation say of the node of the inode that st describes.
func InodeOf(st *unix.Statx_t) (ino, generation uint64) {
	key := keyOf(st)
	return key.ino, key.gen
}

// Held returns the node of an inode, by what Ino and Generation say of it, or nil if
// nobody holds it.
func (v *Volume) Held(ino, generation uint64) *Node { return v.nodes.find(nodeKey{ino, generation}) }

// internNew makes the node of an inode that was just created at p: whatever the
// table holds under its key is of an inode that is gone.
func (v *Volume) internNew(p place, st *unix.Statx_t) *Node {
	n := &Node{vol: v, key: keyOf(st), mode: uint32(st.Mode) & unix.S_IFMT}
	n.addPlace(p)
	v.nodes.mu.Lock()
	v.nodes.m[n.key] = weak.Make(n)
	v.nodes.mu.Unlock()
	runtime.AddCleanup(n, v.nodes.drop, n.key)
	return n
}

// drop removes the entry of a node that is gone, unless a new one took its key.
func (t *nodeTable) drop(key nodeKey) {
	t.mu.Lock()
	if w, ok := t.m[key]; ok && w.Value() == nil {
		delete(t.m, key)
	}
	t.mu.Unlock()
}

// retire makes the table forget a node whose inode is gone, so that a new inode
// of the same number and birth time never meets its state.
func (t *nodeTable) retire(n *Node) {
	t.mu.Lock()
	if t.m[n.key].Value() == n {
		delete(t.m, n.key)
	}
	t.mu.Unlock()
}

// IsDir, IsRegular and IsSymlink tell the node's kind.
func (n *Node) IsDir() bool     { return n.mode == unix.S_IFDIR }
func (n *Node) IsRegular() bool { return n.mode == unix.S_IFREG }
func (n *Node) IsSymlink() bool { return n.mode == unix.S_IFLNK }

// Ino and Generation identify the inode: a number that the backing store used
// again comes with another generation.
func (n *Node) Ino() uint64 { return n.key.ino }
func (n *Node) Generation() uint64 {
	if n.stray { // else whoever tells nodes apart by it takes it for the file's own
		return n.key.gen ^ 1<<63
	}
	return n.key.gen
}

// Kind is the node's S_IFMT bits.
func (n *Node) Kind() uint32 { return n.mode }

// known returns the names the node is known by.
func (n *Node) known() []place {
	if p := n.places.Load(); p != nil {
		return *p
	}
	return nil
}

// update replaces the names by what change makes of a copy of them.
func (n *Node) update(change func([]place) []place) {
	for {
		old := n.places.Load()
		next := change(slices.Clone(n.known()))
		if n.places.CompareAndSwap(old, &next) {
			return
		}
	}
}

func (n *Node) addPlace(p place) {
	if p.parent == nil {
		return
	}
	for _, q := range n.known() {
		if q.parent == p.parent && q.backing == p.backing {
			return
		}
	}
	n.update(func(places []place) []place {
		if n.mode == unix.S_IFDIR || n.vol.shared != nil {
			places = nil // a directory has one name: it was renamed behind our back
		}
		return append(places, p)
	})
}

// dropPlace forgets one name.
func (n *Node) dropPlace(parent *Node, backing string) {
	n.update(func(places []place) []place {
		return slices.DeleteFunc(places, func(p place) bool {
			return p.parent == parent && p.backing == backing
		})
	})
}

// movePlace replaces one name by another after a rename.
func (n *Node) movePlace(parent *Node, backing string, to place) {
	n.dropPlace(parent, backing)
	n.addPlace(to)
}

// at returns one current name, or false for the root and unlinked nodes.
func (n *Node) at() (place, bool) {
	places := n.known()
	if len(places) == 0 {
		return place{}, false
	}
	return places[len(places)-1], true
}

// Forget says that nobody refers to the node any more, until a Lookup finds it
// again: its descriptor is closed and its key dropped; of an unlinked file the
// sidecar is released. It is a hint, not an end: a node that is used after all
// opens itself again, and one that is in use is forgotten when that call ends.
func (n *Node) Forget() {
	if n == n.vol.root {
		return
	}
	n.mu.Lock()
	if n.desc != nil && n.desc.refs.Load() != 0 {
		n.desc.forget.Store(true)
		if n.desc.refs.Load() != 0 {
			n.mu.Unlock()
			return
		}
	}
	d, f, ticket := n.desc, n.file, n.ticket
	n.desc, n.file, n.ticket = nil, nil, nil
	n.mu.Unlock()
	if n.vol.shared != nil {
		ticket = n.lastUser(d, f, ticket)
	}

	if d != nil {
		n.vol.descriptors.remove(d)
		_ = n.vol.backing.Close(d.fd)
	}
	if f != nil {
		n.vol.keys.drop(f.id)
		f.wipe()
	}
	if d != nil && d.pinned {
		n.vol.pinned.remove(n)
	}
	if ticket != nil {
		n.vol.reaper.add(*ticket)
	}
}
