package kmsprovider

import (
	"context"
	"errors"
	"maps"
	"sync"
)

// Meter counts the calls that are made of providers. Safe for concurrent use.
type Meter struct {
	mu    sync.Mutex
	usage map[string]*Usage
}

// Usage is what was asked of one provider.
type Usage struct {
	Calls    map[string]uint64 `json:"calls"`    // by operation, as the Provider's methods are named
	Failures map[string]uint64 `json:"failures"` // by cause: the text of a sentinel, "canceled", "timed out" or "other"
}

// Requests is how many calls were made, those that failed included.
func (u Usage) Requests() (n uint64) {
	for _, calls := range u.Calls {
		n += calls
	}
	return n
}

// Wrap returns a provider that does what p does, and counts it. It is an
// io.Closer, which closes p if p is one.
func (m *Meter) Wrap(p Provider) Provider {
	return Around(p, func(ctx context.Context, operation string, call func(context.Context) error) error {
		err := call(ctx)
		m.count(p.Name(), operation, err)
		return err
	})
}

// Usage returns the counts by provider so far.
func (m *Meter) Usage() map[string]Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]Usage, len(m.usage))
	for name, u := range m.usage {
		out[name] = Usage{Calls: maps.Clone(u.Calls), Failures: maps.Clone(u.Failures)}
	}
	return out
}

func (m *Meter) count(provider, operation string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.usage[provider]
	if u == nil {
		if m.usage == nil {
			m.usage = make(map[string]*Usage)
		}
		u = &Usage{Calls: make(map[string]uint64), Failures: make(map[string]uint64)}
		m.usage[provider] = u
	}
	u.Calls[operation]++
	if err != nil {
		u.Failures[causeOf(err)]++
	}
}

// causeOf names the cause of a failed call.
func causeOf(err error) string {
	for _, cause := range []error{
		ErrAccessDenied, ErrKeyDisabled, ErrKeyNotFound, ErrIncorrectKey, ErrInvalidCiphertext, ErrThrottled,
		ErrUnavailable, ErrInvalidInput,
	} {
		if errors.Is(err, cause) {
			return cause.Error()
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	}
	return "other"
}
