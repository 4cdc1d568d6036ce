package fs

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// foresight opens files before they are read, where a program reads the files of a
// directory one after the other: as the directory lists them (tar, grep -r), by inode
// number (cp -r) or by name (shells, git), forwards or backwards. Most of what a first
// read takes is then done while the program is still busy with the file before.
//
// Two first reads that follow each other begin it; in the next directory one is
// enough. It opens what a listing made known to the kernel, and asks no KMS. What
// it does in vain is bounded: foresightWaste files, and half as many as were read.
type foresight struct {
	mu      sync.Mutex
	courses []*course // the one that was of use last comes last
	way     way       // in which the last directory was read
	trusted bool      // that the next one is read likewise
	opened  int       // ahead of a reader
	read    int       // of those, by now
	busy    bool      // a goroutine is opening
	closed  bool
	group   sync.WaitGroup
}

const (
	foreseen        = 8    // files that are open ahead of a reader
	foresightWaste  = 64   // files opened in vain, at first
	foresightPlaces = 8    // directories it keeps in mind
	foresightLimit  = 2500 // entries of a listing
)

// course is a program's way through the files of a directory.
type course struct {
	dir    *node
	listed *[]uint64 // the listing that it knows them from
	orders [numOrders][]*node
	ranks  [numOrders]map[*node]int // place in orders
	last   *node
	way    way
	hits   int // files in a row that came as foreseen
	next   int // place of the one to be opened next
	until  int // where to stop
}

// way is an order and a direction, 1 or -1.
type way struct {
	order order
	step  int
}

type order int

const (
	asListed order = iota
	byInode
	byName
	numOrders
)

// States of node.first.
const (
	neverRead int32 = iota
	openedAhead
	wasRead
	wasForgotten
)

// reads is told of every read, before it is carried out. Of a shared mount nothing is
// kept from one open to the next, so there nothing is opened ahead.
func (n *node) reads() {
	if n.m.shared || n.first.Load() == wasRead {
		return
	}
	if was := n.first.Swap(wasRead); was != wasRead {
		n.m.foresight.first(n, was == openedAhead)
	}
}

// first notes the first read of a file.
func (a *foresight) first(n *node, ahead bool) {
	_, parent := n.Parent()
	if parent == nil {
		return
	}
	dir := parent.Operations().(*node)
	listed := dir.v.Listed()
	if listed == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ahead {
		a.read++
	}
	if a.closed {
		return
	}
	c := a.course(dir, listed)
	if c.follow(n, a.way, a.trusted); c.hits == 0 {
		a.trusted = false
		return
	}
	a.way, a.trusted = c.way, true
	if !a.busy && c.waiting() > foreseen/2 && a.affordable() {
		a.busy = true
		a.group.Go(a.run)
	}
}

// course returns what is known of a directory, which is the last one then. The
// caller holds mu.
func (a *foresight) course(dir *node, listed *[]uint64) *course {
	var c *course
	if i := slices.IndexFunc(a.courses, func(c *course) bool { return c.dir == dir }); i >= 0 {
		c = a.courses[i]
		a.courses = slices.Delete(a.courses, i, i+1)
	} else if len(a.courses) == foresightPlaces {
		a.courses = slices.Delete(a.courses, 0, 1)
	}
	if c == nil || c.listed != listed {
		c = newCourse(dir, listed)
	}
	a.courses = append(a.courses, c)
	return c
}

// forgotten is told of directories that the kernel forgets.
func (a *foresight) forgotten(dir *node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.courses = slices.DeleteFunc(a.courses, func(c *course) bool { return c.dir == dir })
}

// affordable tells whether one more file may be opened in vain. The caller holds mu.
func (a *foresight) affordable() bool {
	return a.opened-a.read < foresightWaste+a.read/2
}

// run opens files until enough of them are.
func (a *foresight) run() {
	for {
		a.mu.Lock()
		n := a.pick()
		if n == nil {
			a.busy = false
			a.mu.Unlock()
			return
		}
		a.mu.Unlock()
		n.v.Foresee()
		if n.first.Load() == wasForgotten {
			n.v.Forget()
		}
	}
}

// pick chooses a file that nobody has read, and notes that it will be open; nil
// if there is none. The caller holds mu.
func (a *foresight) pick() *node {
	if a.closed || !a.affordable() {
		return nil
	}
	for _, c := range slices.Backward(a.courses) {
		for c.waiting() > 0 {
			n := c.orders[c.way.order][c.next]
			c.next += c.way.step
			if n.first.CompareAndSwap(neverRead, openedAhead) {
				a.opened++
				return n
			}
		}
	}
	return nil
}

// close ends it and waits for what is under way.
func (a *foresight) close() {
	a.mu.Lock()
	a.closed, a.courses = true, nil
	a.mu.Unlock()
	a.group.Wait()
}

// newCourse puts the files of a listing into each order.
func newCourse(dir *node, listed *[]uint64) *course {
	c := &course{dir: dir, listed: listed}
	type entry struct {
		name  string
		place int
		n     *node
	}
	var entries []entry
	places := make(map[uint64]int, len(*listed))
	for i, ino := range *listed {
		places[ino] = i
	}
	for name, child := range dir.Children() {
		n := child.Operations().(*node)
		if place, ok := places[n.v.Ino()]; ok && n.v.IsRegular() {
			entries = append(entries, entry{name, place, n})
		}
	}
	for o, compare := range [numOrders]func(x, y entry) int{
		asListed: func(x, y entry) int { return cmp.Compare(x.place, y.place) },
		byInode:  func(x, y entry) int { return cmp.Compare(x.n.v.Ino(), y.n.v.Ino()) },
		byName:   func(x, y entry) int { return strings.Compare(x.name, y.name) },
	} {
		slices.SortFunc(entries, compare)
		c.ranks[o] = make(map[*node]int, len(entries))
		for i, e := range entries {
			c.orders[o] = append(c.orders[o], e.n)
			c.ranks[o][e.n] = i
		}
	}
	return c
}

// follow notes that n is read, and foresees what comes next. In the first directory
// the way becomes clear with the second file; in others it is likely the same.
func (c *course) follow(n *node, likely way, trusted bool) {
	last := c.last
	c.last = n
	switch _, known := c.ranks[byName][n]; {
	case !known:
		c.hits, c.last = 0, nil
	case last == nil && trusted:
		c.begin(likely)
	case last == nil:
	case c.hits > 0 && c.follows(last, n, c.way):
		c.hits++
	default:
		c.hits = 0
		for o := range numOrders {
			for _, step := range []int{1, -1} {
				if w := (way{o, step}); c.hits == 0 && c.follows(last, n, w) {
					c.begin(w)
				}
			}
		}
	}
	if c.hits == 0 {
		return
	}
	at, step := c.ranks[c.way.order][n], c.way.step
	if (c.next-at)*step <= 0 {
		c.next = at + step
	}
	c.until = max(-1, min(at+(foreseen+1)*step, len(c.orders[c.way.order])))
}

// begin sets out on a way from the file read last.
func (c *course) begin(w way) {
	c.way, c.hits = w, 1
	c.next = c.ranks[w.order][c.last] + w.step
}

// follows tells whether n comes right after last.
func (c *course) follows(last, n *node, w way) bool {
	return c.ranks[w.order][n] == c.ranks[w.order][last]+w.step
}

// waiting is how many files are to be opened.
func (c *course) waiting() int { return max(0, (c.until-c.next)*c.way.step) }
