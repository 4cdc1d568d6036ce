package volume

import (
	"context"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"kmsfs/crypto"
)

// fileKeys is what a file's data key yields: the data key itself is wiped once
// they are derived. They are shared by all calls that use the file, each of which
// acquires and releases them. Once dropped they cannot be acquired any more, and
// are wiped when the last call is done with them.
type fileKeys struct {
	blocks *crypto.BlockCipher
	rooter *crypto.Rooter
	made   time.Duration // on the volume's clock

	users   atomic.Int64 // calls that use them; far below zero once dropped
	touched atomic.Bool  // acquired since somebody cleared it
	dropped atomic.Bool
}

const keysDropped = math.MinInt64 / 2

// deriveFileKeys makes a file's keys from its secret, which it wipes. They are
// not acquired yet.
func deriveFileKeys(secret *crypto.Key, id crypto.ID, now time.Duration) *fileKeys {
	content, root := secret.Derive(crypto.LabelContent), secret.Derive(crypto.LabelRoot)
	secret.Wipe()
	k := &fileKeys{blocks: crypto.NewBlockCipher(content, id), rooter: crypto.NewRooter(root), made: now}
	content.Wipe()
	root.Wipe()
	return k
}

// acquire keeps the keys from being wiped until release. It is false if they
// were dropped.
func (k *fileKeys) acquire() bool {
	for {
		n := k.users.Load()
		if n < 0 {
			return false
		}
		if k.users.CompareAndSwap(n, n+1) {
			if !k.touched.Load() {
				k.touched.Store(true)
			}
			return true
		}
	}
}

func (k *fileKeys) release() {
	if k.users.Add(-1) == keysDropped {
		k.wipe()
	}
}

// drop ends the life of the keys.
func (k *fileKeys) drop() {
	if k.dropped.CompareAndSwap(false, true) && k.users.Add(keysDropped) == keysDropped {
		k.wipe()
	}
}

func (k *fileKeys) wipe() {
	k.blocks.Wipe()
	k.rooter.Wipe()
}

// keyCache holds the keys of files in use. A file that several callers want at
// once is unwrapped once; the others wait without a lock.
type keyCache struct {
	unwrap   func(context.Context, crypto.ID) (*fileKeys, error)
	measured func(time.Duration, error) // told what each unwrap took and came to; may be nil
	waited   atomic.Int64               // nanoseconds, of all callers of get

	mu     sync.Mutex
	m      map[crypto.ID]*keyEntry
	used   uint64 // keys unwrapped ahead that were asked for
	unused uint64 // and those that were dropped before
}

type keyEntry struct {
	id   crypto.ID
	done chan struct{} // closed when keys or err is set
	keys *fileKeys
	err  error

	ahead *stream // that had it unwrapped before anybody asked; nil for most

	// Under the cache's mu.
	claimed  bool // somebody has asked since
	expiring bool
	nodes    []weak.Pointer[Node] // that use the keys; several if copies of a file share its ID
}

func newKeyCache(unwrap func(context.Context, crypto.ID) (*fileKeys, error)) *keyCache {
	return &keyCache{unwrap: unwrap, m: make(map[crypto.ID]*keyEntry)}
}

// get returns the keys of a file for node n, unwrapping them if they are not
// cached; the caller releases them. Failures are not cached: the next caller asks
// again, and so does one who waited for a call that was made ahead.
func (c *keyCache) get(ctx context.Context, id crypto.ID, n *Node) (*fileKeys, error) {
	began := time.Now()
	defer func() { c.waited.Add(int64(time.Since(began))) }()
	for {
		c.mu.Lock()
		e := c.m[id]
		if e == nil {
			e = c.begin(id, nil)
			e.attach(n)
			c.mu.Unlock()
			c.fill(ctx, e)
		} else {
			e.attach(n)
			c.claim(e)
			c.mu.Unlock()
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err != nil {
			if e.ahead != nil {
				continue
			}
			return nil, e.err
		}
		if e.keys.acquire() {
			return e.keys, nil
		}
		// Dropped since it was found; it left the map before.
	}
}

// begin makes the entry of a file whose keys will be unwrapped. The caller
// holds mu.
func (c *keyCache) begin(id crypto.ID, ahead *stream) *keyEntry {
	e := &keyEntry{id: id, done: make(chan struct{}), ahead: ahead}
	c.m[id] = e
	return e
}

// fill unwraps an entry's keys.
func (c *keyCache) fill(ctx context.Context, e *keyEntry) {
	began := time.Now()
	e.keys, e.err = c.unwrap(ctx, e.id)
	if c.measured != nil {
		c.measured(time.Since(began), e.err)
	}
	c.mu.Lock()
	gone := c.m[e.id] != e // its node was forgotten meanwhile
	if e.err != nil && !gone {
		delete(c.m, e.id)
	}
	close(e.done)
	c.mu.Unlock()
	if gone && e.err == nil {
		e.keys.drop()
	}
}

// attach notes that n uses the keys. The caller holds the cache's mu.
func (e *keyEntry) attach(n *Node) {
	w := weak.Make(n)
	for _, other := range e.nodes {
		if other == w {
			return
		}
	}
	e.nodes = append(e.nodes, w)
}

// put caches the keys of a file that was just created.
func (c *keyCache) put(id crypto.ID, k *fileKeys, n *Node) {
	e := &keyEntry{id: id, done: make(chan struct{}), keys: k}
	e.attach(n)
	close(e.done)
	c.mu.Lock()
	c.m[id] = e
	c.mu.Unlock()
}

// drop forgets the keys of a file. Calls that use them go on with them.
func (c *keyCache) drop(id crypto.ID) {
	c.mu.Lock()
	e := c.m[id]
	c.lose(e)
	c.mu.Unlock()
	e.drop()
}

// remove drops an entry, unless another one is in its place.
func (c *keyCache) remove(e *keyEntry) {
	c.mu.Lock()
	if c.m[e.id] == e {
		c.lose(e)
	}
	c.mu.Unlock()
	e.drop()
}

// lose takes an entry, or nil, off the map. The caller holds mu.
func (c *keyCache) lose(e *keyEntry) {
	if e == nil {
		return
	}
	if e.ahead != nil && !e.claimed {
		c.unused++
	}
	delete(c.m, e.id)
}

// drop ends the life of an entry's keys, if it has them; fill does so where it is
// still waiting for them.
func (e *keyEntry) drop() {
	if e == nil {
		return
	}
	select {
	case <-e.done:
		if e.keys != nil {
			e.keys.drop()
		}
	default:
	}
}

// expire returns the entries whose keys were made before a time, each once.
func (c *keyCache) expire(before time.Duration) []*keyEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*keyEntry
	for _, e := range c.m {
		select {
		case <-e.done:
			if !e.expiring && e.keys != nil && e.keys.made < before {
				e.expiring = true
				out = append(out, e)
			}
		default:
		}
	}
	return out
}

// users returns the nodes that use an entry's keys.
func (c *keyCache) users(e *keyEntry) []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*Node
	for _, w := range e.nodes {
		if n := w.Value(); n != nil {
			out = append(out, n)
		}
	}
	return out
}

// size is how many files' keys are cached.
func (c *keyCache) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.m)
}

// wipe drops everything.
func (c *keyCache) wipe() {
	c.mu.Lock()
	entries := maps.Clone(c.m)
	for _, e := range entries {
		c.lose(e)
	}
	c.mu.Unlock()
	for _, e := range entries {
		e.drop()
	}
}
