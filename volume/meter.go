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

func (m *meter) wrap(p kmsprovider.Provider) kmsprovider.Provider {
	return kmsprovider.Around(p, m.call)
}

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
