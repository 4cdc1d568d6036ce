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
	return &Provider{Provider: p, delay: delay, calls: make(map[string]int)}
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

// begin counts a call and waits. Its result is called when the call ends.
func (p *Provider) begin(ctx context.Context, operation string) (end func(), err error) {
	p.mu.Lock()
	p.calls[operation]++
	p.under++
	p.peak = max(p.peak, p.under)
	p.mu.Unlock()
	if p.delay > 0 {
		t := time.NewTimer(p.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return func() {
		p.mu.Lock()
		p.under--
		p.mu.Unlock()
	}, err
}

// GenerateDataKey is kmsprovider.Provider's, as are those below.
func (p *Provider) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) ([]byte, []byte, error) {
	end, err := p.begin(ctx, "GenerateDataKey")
	defer end()
	if err != nil {
		return nil, nil, err
	}
	return p.Provider.GenerateDataKey(ctx, keyID, ec)
}

// Decrypt waits.
func (p *Provider) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	end, err := p.begin(ctx, "Decrypt")
	defer end()
	if err != nil {
		return nil, err
	}
	return p.Provider.Decrypt(ctx, keyID, wrapped, ec)
}

// Encrypt waits.
func (p *Provider) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	end, err := p.begin(ctx, "Encrypt")
	defer end()
	if err != nil {
		return nil, err
	}
	return p.Provider.Encrypt(ctx, keyID, plaintext, ec)
}

// ReEncrypt waits.
func (p *Provider) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	end, err := p.begin(ctx, "ReEncrypt")
	defer end()
	if err != nil {
		return nil, err
	}
	return p.Provider.ReEncrypt(ctx, wrapped, from, fromEC, to, toEC)
}

// DescribeKey waits.
func (p *Provider) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	end, err := p.begin(ctx, "DescribeKey")
	defer end()
	if err != nil {
		return kmsprovider.KeyInfo{}, err
	}
	return p.Provider.DescribeKey(ctx, keyID)
}
