package fs

import (
	"sync"
	"sync/atomic"
)

// READDIRPLUS is always asked for. The kernel's own choice (READDIRPLUS_AUTO) is
// names only after the first answer, unless it sees a program look at entries while
// it lists; but find and git read a directory to its end first, and each entry was a
// LOOKUP then. Here the choice is made for each entry: one whose NodeId is 0 in an
// answer is but a name to the kernel, and costs neither a call nor a node.

const (
	// lookAhead is for how many entries a listing has attributes unasked. That takes
	// some 30 ms where nobody wants them; as many LOOKUPs take a quarter of a second
	// where somebody does. Few directories are larger, and of those the rest is cheap.
	lookAhead = 2500
	// probe is how many entries are but names then, in an answer of their own. If one
	// of them is looked up, the next lookAhead entries have attributes again.
	probe = 8
)

// looking chooses which entries of a listing have attributes. The lock of its
// handle guards it, but for looked.
type looking struct {
	left   int         // entries that will have attributes
	names  int         // entries without, since there were none left
	looked atomic.Bool // an entry of the directory was looked up since
}

// again begins anew, as a new handle does.
func (l *looking) again() {
	l.left, l.names = lookAhead, 0
	l.looked.Store(false)
}

// ends says whether an answer with so many entries ends here: names begin, or the
// probe is over. An empty answer never does, as it would mean the end of the directory.
func (l *looking) ends(answered int) bool {
	return answered > 0 && l.left == 0 && (l.names == 0 || l.names == probe)
}

// lookers are the listings that have no attributes left, by the kernel's number of
// the directory. Mostly there are none.
type lookers struct {
	n     atomic.Int32
	mu    sync.Mutex
	byDir map[uint64]map[*dirHandle]struct{}
}

func (l *lookers) add(dir uint64, h *dirHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byDir == nil {
		l.byDir = make(map[uint64]map[*dirHandle]struct{})
	}
	if l.byDir[dir] == nil {
		l.byDir[dir] = make(map[*dirHandle]struct{})
	}
	if _, ok := l.byDir[dir][h]; !ok {
		l.byDir[dir][h] = struct{}{}
		l.n.Add(1)
	}
}

func (l *lookers) remove(dir uint64, h *dirHandle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.byDir[dir][h]; !ok {
		return
	}
	l.n.Add(-1)
	if delete(l.byDir[dir], h); len(l.byDir[dir]) == 0 {
		delete(l.byDir, dir)
	}
}

// found notes that an entry of a directory was looked up.
func (l *lookers) found(dir uint64) {
	if l.n.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for h := range l.byDir[dir] {
		h.looking.looked.Store(true)
	}
	l.n.Add(-int32(len(l.byDir[dir])))
	delete(l.byDir, dir)
}
