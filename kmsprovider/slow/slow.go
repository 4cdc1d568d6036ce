// Package slow puts time before the calls to a KMS, and counts them: for tests and benchmarks of what a KMS that is far
// away costs.
package slow

import (
	"context"
	"maps"
	"sync"
	"time"

	"kmsfs/kmsprovider"
)

// Provider does what the one below does, each call a while later.
type Provider struct {
	kmsprovider.Provider
	delay time.Duration

	mu          sync.Mutex
	calls       map[string]int
	under, peak int
}

// New returns a Provider whose calls take delay more than those of p.
func New(p kmsprovider.Provider, delay time.Duration) *Provider {
	s := &Provider{delay: delay, calls: make(map[string]int)}
	s.Provider = kmsprovider.Around(p, s.call)
	return s
}

// Calls are those that began so far, by operation.
func (p *Provider) Calls() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls)
}

// UnderWay is how many calls have begun and not ended.
func (p *Provider) UnderWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.under
}

// Peak is how many calls were under way at once, at most, since it was last asked.
func (p *Provider) Peak() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	peak := p.peak
	p.peak = p.under
	return peak
}

// call counts a call, waits, and makes it.
func (p *Provider) call(ctx context.Context, operation string, call func(context.Context) error) error {
	p.mu.Lock()
	p.calls[operation]++
	p.under++
	p.peak = max(p.peak, p.under)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.under--
		p.mu.Unlock()
	}()
	if p.delay > 0 {
		t := time.NewTimer(p.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return call(ctx)
}
