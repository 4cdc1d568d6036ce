package volume

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kmsfs/crypto"
)

// newFileKey is a data key made ahead: bound to a file ID, its sidecar written,
// waiting for a file. With it come the ciphers that the file's first record and
// first block are sealed with.
type newFileKey struct {
	id        crypto.ID
	keys      *fileKeys
	records   *crypto.RecordCipher
	recSealer *crypto.RecordSealer
	writes    *writerSession
}

// wipe overwrites the keys, for which there will be no file.
func (k *newFileKey) wipe() {
	k.keys.drop()
	k.records.Wipe()
}

// keyPool makes data keys ahead, so that creating a file waits neither for the
// KMS nor for the sidecar. It starts small and grows with demand, so a mount
// that creates little asks for little: what is ready or under way is never more
// than poolLimit, and what is left of it when the volume is closed is the only
// waste. How many calls are under way follows from how long they take.
type keyPool struct {
	make     func(context.Context) (newFileKey, error)
	discard  func(newFileKey)
	patience time.Duration   // how long take waits
	ctx      context.Context // of the volume; ends when it is closed
	stop     context.CancelFunc
	waited   atomic.Int64 // nanoseconds, of all callers of take

	mu      sync.Mutex
	changed *sync.Cond // a call ended
	ready   []newFileKey
	waiters []chan madeKey // of callers of take, the first to be served first
	making  int            // calls under way
	target  int            // how many to have ready
	pace    pace
	unused  int // keys discarded
	closed  bool
}

// madeKey is what a call came to.
type madeKey struct {
	newFileKey
	err error
}

const (
	poolStart       = 4
	poolLimit       = 256
	poolConcurrency = 64
	poolPause       = 10 * time.Second // after which demand starts over
)

func newKeyPool(ctx context.Context, patience time.Duration, make func(context.Context) (newFileKey, error), discard func(newFileKey)) *keyPool {
	p := &keyPool{
		make: make, discard: discard, patience: patience,
		target: poolStart, pace: pace{least: poolStart, most: poolConcurrency},
	}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.changed = sync.NewCond(&p.mu)
	return p
}

// take returns a key for a new file. It waits only when the pool has run dry,
// and fails only when there is no call left that could still serve it, or when
// none did for so long as the KMS has.
func (p *keyPool) take() (newFileKey, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return newFileKey{}, context.Canceled
	}
	now := time.Now()
	if now.Sub(p.pace.last) > poolPause {
		p.target = min(p.target, poolStart)
	}
	p.pace.asked(now)
	if len(p.ready) > 0 {
		k := p.ready[0]
		p.ready[0] = newFileKey{}
		p.ready = p.ready[1:]
		p.fill()
		p.mu.Unlock()
		return k, nil
	}
	p.target = min(2*p.target, poolLimit)
	w := make(chan madeKey, 1)
	p.waiters = append(p.waiters, w)
	p.fill()
	p.mu.Unlock()
	return p.wait(w)
}

// wait returns what w is served with.
func (p *keyPool) wait(w chan madeKey) (newFileKey, error) {
	began := time.Now()
	defer func() { p.waited.Add(int64(time.Since(began))) }()
	timeout := time.NewTimer(p.patience)
	defer timeout.Stop()
	select {
	case k := <-w:
		return k.newFileKey, k.err
	case <-timeout.C:
	}
	p.mu.Lock()
	p.waiters = slices.DeleteFunc(p.waiters, func(other chan madeKey) bool { return other == w })
	p.mu.Unlock()
	select {
	case k := <-w: // just now
		return k.newFileKey, k.err
	default:
		return newFileKey{}, fmt.Errorf("wait for a data key: nothing for %v: %w", p.patience, context.DeadlineExceeded)
	}
}

// put gives back a key whose file was not made after all.
func (p *keyPool) put(k newFileKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(k)
}

// keep serves a waiter with k, or has it ready. The caller holds mu.
func (p *keyPool) keep(k newFileKey) {
	switch {
	case p.closed:
		p.unused++
		p.discard(k)
	case len(p.waiters) > 0:
		p.serve(madeKey{newFileKey: k})
	default:
		p.ready = append(p.ready, k)
	}
}

// serve answers the waiter that came first. The caller holds mu.
func (p *keyPool) serve(k madeKey) {
	p.waiters[0] <- k
	p.waiters = p.waiters[1:]
}

// fill starts calls until enough are ready or on their way. Above half of the
// target it waits, so that calls come in batches. After a failure nothing is
// made ahead for a while. The caller holds mu.
func (p *keyPool) fill() {
	if p.closed {
		return
	}
	wanted := len(p.waiters) - p.making
	if have := len(p.ready) + p.making; have <= p.target/2 && !p.pace.resting(time.Now()) {
		wanted = max(wanted, p.target-have)
	}
	for range min(wanted, p.pace.width()-p.making) {
		p.making++
		go p.work()
	}
}

// work makes keys until enough are ready.
func (p *keyPool) work() {
	for p.one() {
	}
}

// expire discards keys that were made before a time. No others are made in their
// place until one is asked for: a mount that creates nothing asks for nothing.
func (p *keyPool) expire(before time.Duration) {
	p.mu.Lock()
	var old []newFileKey
	p.ready = slices.DeleteFunc(p.ready, func(k newFileKey) bool {
		if k.keys.made >= before {
			return false
		}
		old = append(old, k)
		p.unused++
		return true
	})
	p.mu.Unlock()
	for _, k := range old {
		p.discard(k)
	}
}

// discardAll discards all keys that are ready or on their way. The caller sees to
// it that no more calls succeed.
func (p *keyPool) discardAll() {
	p.mu.Lock()
	for p.making > 0 {
		p.changed.Wait()
	}
	p.mu.Unlock()
	p.expire(math.MaxInt64)
}

// one makes a key, and tells whether to go on.
func (p *keyPool) one() bool {
	began := time.Now()
	k, err := p.make(p.ctx)
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed.Broadcast()
	if err != nil {
		p.making--
		p.pace.failed(now, err)
		for len(p.waiters) > p.making {
			p.serve(madeKey{err: err})
		}
		return false
	}
	p.pace.took(now.Sub(began))
	p.keep(k)
	if p.closed || p.making > p.pace.width() || len(p.ready)+p.making > max(p.target, len(p.waiters)) {
		p.making--
		return false
	}
	p.fill() // the first calls say how many there should be
	return true
}

// counts are how many keys are ready, and how many were discarded.
func (p *keyPool) counts() (ready, unused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready), p.unused
}

// close stops the calls under way and discards what is left, sidecars included.
func (p *keyPool) close() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for len(p.waiters) > 0 {
		p.serve(madeKey{err: context.Canceled})
	}
	for p.making > 0 {
		p.changed.Wait()
	}
	for _, k := range p.ready {
		p.keep(k)
	}
	p.ready = nil
}
