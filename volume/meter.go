package volume

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"kmsfs/kmsprovider"
)

// meter counts the calls to KMSs, holds them back to a rate, and gives each its
// deadline.
type meter struct {
	limit    *rate.Limiter // nil for none
	deadline time.Duration

	mu    sync.Mutex
	calls map[string]int64
}

// newMeter takes the most calls in a second, 0 for no limit, and how long one
// may take, 0 for the usual time.
func newMeter(perSecond float64, deadline time.Duration) *meter {
	m := &meter{deadline: deadline, calls: make(map[string]int64)}
	if perSecond > 0 {
		m.limit = rate.NewLimiter(rate.Limit(perSecond), 1)
	}
	if m.deadline == 0 {
		m.deadline = defaultKMSDeadline
	}
	return m
}

func (m *meter) wrap(p kmsprovider.Provider) kmsprovider.Provider { return &metered{p, m} }

// counts returns the calls so far by operation.
func (m *meter) counts() map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.calls)
}

// call waits for its turn and makes a call.
func (m *meter) call(ctx context.Context, operation string, call func(context.Context) error) error {
	if m.limit != nil {
		if err := m.limit.Wait(ctx); err != nil {
			return err
		}
	}
	m.mu.Lock()
	m.calls[operation]++
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, m.deadline)
	defer cancel()
	return call(ctx)
}

// metered is a provider behind a meter.
type metered struct {
	provider kmsprovider.Provider
	meter    *meter
}

var _ kmsprovider.Provider = (*metered)(nil)

func (p *metered) Name() string { return p.provider.Name() }

func (p *metered) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	err = p.meter.call(ctx, "GenerateDataKey", func(ctx context.Context) (err error) {
		plaintext, wrapped, err = p.provider.GenerateDataKey(ctx, keyID, ec)
		return err
	})
	return plaintext, wrapped, err
}

func (p *metered) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) (plaintext []byte, err error) {
	err = p.meter.call(ctx, "Decrypt", func(ctx context.Context) (err error) {
		plaintext, err = p.provider.Decrypt(ctx, keyID, wrapped, ec)
		return err
	})
	return plaintext, err
}

func (p *metered) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) (wrapped []byte, err error) {
	err = p.meter.call(ctx, "Encrypt", func(ctx context.Context) (err error) {
		wrapped, err = p.provider.Encrypt(ctx, keyID, plaintext, ec)
		return err
	})
	return wrapped, err
}

func (p *metered) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) (rewrapped []byte, err error) {
	err = p.meter.call(ctx, "ReEncrypt", func(ctx context.Context) (err error) {
		rewrapped, err = p.provider.ReEncrypt(ctx, wrapped, from, fromEC, to, toEC)
		return err
	})
	return rewrapped, err
}

func (p *metered) DescribeKey(ctx context.Context, keyID string) (info kmsprovider.KeyInfo, err error) {
	err = p.meter.call(ctx, "DescribeKey", func(ctx context.Context) (err error) {
		info, err = p.provider.DescribeKey(ctx, keyID)
		return err
	})
	return info, err
}
