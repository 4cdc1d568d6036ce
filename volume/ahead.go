package volume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"kmsfs/crypto"
)

// ahead unwraps data keys before they are asked for, where files are read for
// the first time in the order in which directories list them or in that of
// their names, so that reading many small files does not wait for the KMS once
// for each.
//
// It starts with reads alone: listing and stat cause no call. A read that has to
// wait for the KMS is remembered by the files that walks would come to next.
// When one of those is asked for, keys are unwrapped
// ahead from there on, in a window that begins with two and doubles whenever the
// program still has to wait, up to aheadLimit. It does not go on into another
// directory before the program does. Calls in vain are never
// more than aheadLimit and a quarter of those that were not.
//
// Failures here are nobody's: they are not cached, a reader that waited asks for
// itself, and nothing is unwrapped ahead for a while.
type ahead struct {
	vol   *Volume
	group sync.WaitGroup // goroutines

	mu      sync.Mutex
	ctx     context.Context // of calls under way
	cancel  context.CancelFunc
	pace    pace
	streams []*stream // the one that was of use last comes last
	asks    int       // files that were read cold
	misses  int       // of those, since a guess was right
	last    uint64    // inode of the last miss
	timer   *time.Timer
	closed  bool
}

const (
	aheadLimit   = 128                    // keys not yet asked for, hence calls under way
	aheadStreams = 8                      // places of which it remembers what comes next
	aheadWorth   = 200 * time.Microsecond // calls that take less are not worth it
	aheadKeep    = time.Minute            // after which a key that nobody asked for is dropped
)

func newAhead(v *Volume) *ahead {
	a := &ahead{vol: v, pace: pace{least: aheadLimit, most: aheadLimit}}
	a.ctx, a.cancel = context.WithCancel(v.ctx)
	v.keys.measured = a.measured
	return a
}

// measured learns what a call took, and that calls fail.
func (a *ahead) measured(d time.Duration, err error) {
	var bad *sidecarError
	if errors.As(err, &bad) || errors.Is(err, context.Canceled) {
		return // says nothing of the KMS
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.pace.took(d)
	} else {
		a.pace.failed(time.Now(), err)
	}
}

// ask is told of each file before its keys are taken from the cache. It waits
// for no call, and reads no more than one directory's beginning.
func (a *ahead) ask(n *Node, id crypto.ID) {
	if a == nil {
		return
	}
	s, cached, waits := a.vol.keys.look(id)
	if cached && s == nil {
		return
	}
	a.mu.Lock()
	a.asks++
	if s == nil {
		s = a.guessed(n, id)
	}
	switch {
	case s != nil:
		a.misses = 0
		a.advance(s, id, waits)
	case a.worthGuessing(n):
		a.mu.Unlock()
		a.guess(n)
		return
	}
	a.mu.Unlock()
}

// guessed returns the stream that foretold n: it comes next, or a call ahead
// for it failed. The caller holds mu.
func (a *ahead) guessed(n *Node, id crypto.ID) *stream {
	for _, s := range a.streams {
		if s.held && s.next.ino == n.key.ino {
			s.held = false
			s.crosses = s.crosses || s.next.dir != s.dir
			s.dir = s.next.dir
			return s
		}
		if s.has(id) {
			return s
		}
	}
	return nil
}

// worthGuessing tells whether to look for what comes after a miss. Programs that
// read in no order make it look rarely. The caller holds mu.
func (a *ahead) worthGuessing(n *Node) bool {
	again := n.key.ino == a.last // another part of the same file
	a.last = n.key.ino
	if again || a.closed || a.pace.call < aheadWorth || a.pace.resting(time.Now()) {
		return false
	}
	a.misses++
	return a.misses <= 8 || a.misses%32 < 2
}

// guess remembers which files may come after n.
func (a *ahead) guess(n *Node) {
	v := a.vol
	for _, order := range []func(*Node) (*walk, error){v.walkFrom, v.walkByName} {
		w, err := order(n)
		if err != nil {
			continue
		}
		s := &stream{walk: w, dir: w.frames[0].ino, held: true, window: 1, used: time.Now()}
		cached := true
		for cached && err == nil {
			if s.next, err = w.next(); err == nil {
				_, cached, _ = v.keys.look(s.next.id)
			}
		}
		if err != nil || !a.add(s) {
			w.close()
		}
	}
}

// add makes room for a stream, and tells whether it is wanted.
func (a *ahead) add(s *stream) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := func(t *stream) bool { return t.held && t.next.ino == s.next.ino }
	if a.closed || slices.ContainsFunc(a.streams, known) {
		return false
	}
	if len(a.streams) == aheadStreams {
		a.end(a.streams[0])
	}
	a.streams = append(a.streams, s)
	if a.timer == nil {
		a.timer = time.AfterFunc(aheadKeep, a.sweep)
	}
	return true
}

// window is how many keys s may have that nobody asked for yet: its share of
// what all programs have that read at present. The caller holds mu.
func (a *ahead) window(s *stream) int {
	active := 1
	recently := time.Now().Add(-time.Second)
	for _, other := range a.streams {
		if other != s && len(other.pending) > 0 && other.used.After(recently) {
			active++
		}
	}
	return max(1, min(s.window, a.pace.width()/active))
}

// affordable tells whether another call may be in vain. The caller holds mu.
func (a *ahead) affordable() bool {
	_, unused := a.vol.keys.aheadCounts()
	open := int(unused)
	for _, s := range a.streams {
		open += len(s.pending) + len(s.skipped)
	}
	return open < aheadLimit+a.asks/4
}

// sweep ends the streams of programs that went away.
func (a *ahead) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := time.Now().Add(-aheadKeep)
	for _, s := range slices.Clone(a.streams) {
		if s.used.Before(old) {
			a.end(s)
			continue
		}
		s.skipped = a.dropOld(s.skipped, old)
		s.pending = a.dropOld(s.pending, old)
	}
	a.timer = nil
	if len(a.streams) > 0 && !a.closed {
		a.timer = time.AfterFunc(aheadKeep/4, a.sweep)
	}
}

// dropOld drops the keys that were unwrapped before a time. The caller holds mu.
func (a *ahead) dropOld(keys []aheadKey, old time.Time) []aheadKey {
	return slices.DeleteFunc(keys, func(k aheadKey) bool {
		if !k.at.Before(old) {
			return false
		}
		a.vol.keys.dropUnused(k.id)
		return true
	})
}

// giveUp ends everything that is under way, when the volume gives its keys up.
func (a *ahead) giveUp() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancel()
	a.ctx, a.cancel = context.WithCancel(a.vol.ctx)
	for len(a.streams) > 0 {
		a.end(a.streams[0])
	}
}

// close ends everything for good and waits for it.
func (a *ahead) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
	a.mu.Unlock()
	a.giveUp()
	a.group.Wait()
}

// look tells whether the keys of a file are cached or being unwrapped, for which
// stream, if nobody has asked for them yet, and whether they are to be waited for.
func (c *keyCache) look(id crypto.ID) (s *stream, cached, waits bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.m[id]
	if e == nil {
		return nil, false, true
	}
	select {
	case <-e.done:
	default:
		waits = true
	}
	if e.claimed {
		return nil, true, waits
	}
	return e.ahead, true, waits
}

// beginAhead makes the entry of a file that nobody has asked for; nil if there
// is one.
func (c *keyCache) beginAhead(id crypto.ID, s *stream) *keyEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m[id] != nil {
		return nil
	}
	return c.begin(id, s)
}

// claim notes that somebody asked for an entry. The caller holds mu.
func (c *keyCache) claim(e *keyEntry) {
	if e.ahead != nil && !e.claimed {
		e.claimed = true
		c.used++
	}
}

// dropUnused drops the keys of a file if nobody has asked for them.
func (c *keyCache) dropUnused(id crypto.ID) {
	c.mu.Lock()
	e := c.m[id]
	if e == nil || e.ahead == nil || e.claimed {
		c.mu.Unlock()
		return
	}
	c.lose(e)
	c.mu.Unlock()
	e.drop()
}

// aheadCounts are how many keys unwrapped ahead were asked for and how many
// were dropped before.
func (c *keyCache) aheadCounts() (used, unused uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.unused
}
