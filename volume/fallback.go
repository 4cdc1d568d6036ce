package volume

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// share gives one key its part of the time that is left for it and for others:
// a KMS that hangs leaves some to the next.
func share(ctx context.Context, keys int) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || keys <= 1 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/time.Duration(keys))
}

// joinFailures makes one error of those of all keys, the one that says most
// about what to do first. That a key is of no use here says little where another
// one failed for a reason of its own: it is told, and is no cause.
func joinFailures(failed []error) error {
	if len(failed) == 1 {
		return failed[0]
	}
	slices.SortStableFunc(failed, func(a, b error) int { return cmp.Compare(usefulness(a), usefulness(b)) })
	if !errors.Is(failed[0], kmsprovider.ErrNotUsable) {
		for i, err := range failed {
			if errors.Is(err, kmsprovider.ErrNotUsable) {
				failed[i] = errors.New(err.Error())
			}
		}
	}
	return errors.Join(failed...)
}

// setbackTime is how long a key that failed is tried after the others.
const setbackTime = time.Minute

// setbacks remembers which of a volume's keys failed of late while another one
// helped, so that not every file waits for a KMS that is away.
type setbacks struct {
	mu sync.Mutex
	at map[string]time.Time
}

// note remembers that a key failed.
func (s *setbacks) note(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[string]time.Time)
	}
	s.at[key] = time.Now()
}

// order puts the keys that failed of late behind the others.
func (s *setbacks) order(keys []crypto.WrappedKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	late := func(k crypto.WrappedKey) int {
		if at, ok := s.at[k.KeyID]; ok && time.Since(at) < setbackTime {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(keys, func(a, b crypto.WrappedKey) int { return late(a) - late(b) })
}
