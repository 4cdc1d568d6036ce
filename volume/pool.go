package volume

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"kmsfs/crypto"
)

// newFileKey is a data key made ahead: bound to a file ID, its sidecar written,
// waiting for a file.
type newFileKey struct {
	id   crypto.ID
	keys *fileKeys
}

// keyPool makes data keys ahead, so that creating a file waits neither for the
// KMS nor for the sidecar. It starts small and grows with demand, so a mount
// that creates little asks for little.
type keyPool struct {
	make    func(context.Context) (newFileKey, error)
	discard func(newFileKey)
	ctx     context.Context // of the volume; ends when it is closed
	stop    context.CancelFunc

	mu      sync.Mutex
	changed *sync.Cond
	ready   []newFileKey
	making  int // calls under way
	target  int // how many to have ready
	failed  int // counts failed calls, so that a waiter sees a new one
	err     error
	closed  bool
}

const (
	poolStart       = 4
	poolLimit       = 256
	poolConcurrency = 8
)

func newKeyPool(ctx context.Context, make func(context.Context) (newFileKey, error), discard func(newFileKey)) *keyPool {
	p := &keyPool{make: make, discard: discard, target: poolStart}
	p.ctx, p.stop = context.WithCancel(ctx)
	p.changed = sync.NewCond(&p.mu)
	return p
}

// take returns a key for a new file. It waits only when the pool has run dry,
// and fails only when a call made for it failed.
func (p *keyPool) take() (newFileKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		p.target = min(2*p.target, poolLimit)
	}
	seen := p.failed
	for {
		if p.closed {
			return newFileKey{}, context.Canceled
		}
		if n := len(p.ready); n > 0 {
			k := p.ready[n-1]
			p.ready = p.ready[:n-1]
			p.fill()
			return k, nil
		}
		if p.failed != seen {
			return newFileKey{}, p.err
		}
		p.fill()
		p.changed.Wait()
	}
}

// prefetch starts making keys before the first is asked for.
func (p *keyPool) prefetch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill()
}

// put gives back a key whose file was not made after all.
func (p *keyPool) put(k newFileKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.discard(k)
		return
	}
	p.ready = append(p.ready, k)
	p.changed.Signal()
}

// fill starts calls until enough are ready or on their way. Above half of the
// target it waits, so that calls come in batches. The caller holds mu.
func (p *keyPool) fill() {
	if len(p.ready)+p.making > p.target/2 || p.closed {
		return
	}
	workers := min(p.target-len(p.ready)-p.making, poolConcurrency-p.making)
	for range workers {
		p.making++
		go p.work()
	}
}

// work makes keys until enough are ready.
func (p *keyPool) work() {
	for {
		k, err := p.make(p.ctx)
		p.mu.Lock()
		switch {
		case err != nil:
			p.failed++
			p.err = err
		case p.closed:
			p.discard(k)
		default:
			p.ready = append(p.ready, k)
		}
		more := err == nil && !p.closed && len(p.ready)+p.making <= p.target
		if !more {
			p.making--
		}
		p.changed.Broadcast()
		p.mu.Unlock()
		if !more {
			return
		}
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

// size is how many keys are ready.
func (p *keyPool) size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// close stops the calls under way and discards what is left, sidecars included.
func (p *keyPool) close() {
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.changed.Broadcast()
	for p.making > 0 {
		p.changed.Wait()
	}
	for _, k := range p.ready {
		p.discard(k)
	}
	p.ready = nil
}
