package volume

import (
	"slices"
	"time"

	"kmsfs/crypto"
)

// stream is one program's way through the tree, as far as it can be foretold.
// Its fields are under ahead.mu, but for the walk, which is used by who set busy.
type stream struct {
	walk *walk
	busy bool // a goroutine is walking
	over bool

	// next is held back until it is asked for: at the beginning, and where
	// another directory begins, until the program was seen to go on there.
	next    walkFile
	held    bool
	dir     uint64 // inode of the directory that it is in
	crosses bool

	pending []aheadKey // unwrapped, to be asked for in this order
	skipped []aheadKey // unwrapped and passed over
	window  int        // how many may be pending
	hits    int
	used    time.Time
}

// aheadKey is a key that nobody has asked for yet.
type aheadKey struct {
	id crypto.ID
	at time.Time
}

// advance notes that a file that s foretold was asked for, and has more
// unwrapped where enough of the window is empty. If the program has to wait for it,
// the window was too small. The caller holds mu.
func (a *ahead) advance(s *stream, id crypto.ID, waits bool) {
	if s.over {
		return
	}
	now := time.Now()
	if waits {
		s.window = min(2*s.window, aheadLimit)
	}
	s.used = now
	s.hits++
	a.remove(s)
	a.streams = append(a.streams, s) // the last one to be given up
	s.asked(id)
	if len(s.skipped) > aheadStreams+s.hits/4 {
		a.end(s)
		return
	}
	window := a.window(s)
	if s.held || s.busy || s.walk == nil || len(s.pending) > window-max(1, window/8) || a.closed || a.pace.resting(now) {
		return
	}
	s.busy = true
	a.group.Go(func() { a.run(s) })
}

// asked takes a key off the list; those before it were passed over.
func (s *stream) asked(id crypto.ID) {
	if i := indexOf(s.pending, id); i >= 0 {
		s.skipped = append(s.skipped, s.pending[:i]...)
		s.pending = s.pending[i+1:]
	} else if i := indexOf(s.skipped, id); i >= 0 {
		s.skipped = slices.Delete(s.skipped, i, i+1)
	}
}

func (s *stream) has(id crypto.ID) bool {
	return indexOf(s.pending, id) >= 0 || indexOf(s.skipped, id) >= 0
}

func indexOf(keys []aheadKey, id crypto.ID) int {
	return slices.IndexFunc(keys, func(k aheadKey) bool { return k.id == id })
}

// run unwraps keys until the window of s is full.
func (a *ahead) run(s *stream) {
	for a.more(s) {
		f, err := s.walk.next()
		a.mu.Lock()
		if err != nil { // the end, or nothing for a long way
			s.walk.close()
			s.walk = nil
		} else if f.dir != s.dir && !s.crosses {
			s.next, s.held = f, true
		} else {
			s.dir = f.dir
			a.unwrap(s, f.id)
		}
		a.mu.Unlock()
	}
}

// more tells whether to go on. If not, the walk is left to others, or closed.
func (a *ahead) more(s *stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !s.over && !s.held && s.walk != nil && len(s.pending) < a.window(s) && a.affordable() && !a.pace.resting(time.Now()) {
		return true
	}
	s.busy = false
	if s.over && s.walk != nil {
		s.walk.close()
		s.walk = nil
	}
	return false
}

// unwrap begins to unwrap a key, unless it is cached. The caller holds mu.
func (a *ahead) unwrap(s *stream, id crypto.ID) {
	gate := &a.vol.custody.gate
	if s.over {
		return
	}
	if gate.enter(ordinary) != nil {
		a.end(s)
		return
	}
	e := a.vol.keys.beginAhead(id, s)
	if e == nil {
		gate.leave()
		return
	}
	s.pending = append(s.pending, aheadKey{id: id, at: time.Now()})
	ctx := a.ctx
	a.group.Go(func() {
		defer gate.leave()
		a.vol.keys.fill(ctx, e)
	})
}

// end gives up on a stream and drops what nobody asked for. The caller holds mu.
func (a *ahead) end(s *stream) {
	a.remove(s)
	s.over = true
	for _, keys := range [][]aheadKey{s.pending, s.skipped} {
		for _, k := range keys {
			a.vol.keys.dropUnused(k.id)
		}
	}
	s.pending, s.skipped = nil, nil
	if !s.busy && s.walk != nil {
		s.walk.close()
		s.walk = nil
	}
}

// remove takes a stream off the list. The caller holds mu.
func (a *ahead) remove(s *stream) {
	a.streams = slices.DeleteFunc(a.streams, func(k *stream) bool { return k == s })
}
