package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"kmsfs/kmsprovider"
)

// keysAtOnce bounds how many files are in work, hence how many calls to a KMS are
// under way.
const keysAtOnce = 64

// keyStage has data keys unwrapped for files that are going to be decrypted: as
// many at a time as the KMS takes.
type keyStage struct {
	mu    sync.Mutex
	ready *sync.Cond
	pace  pace
	calls int
}

func (s *keyStage) init() {
	s.pace = pace{least: keysAtOnce, most: keysAtOnce}
	s.ready = sync.NewCond(&s.mu)
}

// errRefused: the KMS denies the use of a file's key.
type errRefused struct{ error }

func (e errRefused) Unwrap() error { return e.error }

// unlock returns a file's keys; the caller releases them. Errors are a
// sidecarError, unreadSidecarError, errRefused, and what ends the check: a KMS that
// is not there says nothing of the volume.
func (s *keyStage) unlock(ctx context.Context, f *file) (*fileKeys, error) {
	v := f.node.vol
	for {
		if err := s.begin(ctx); err != nil {
			return nil, err
		}
		began := time.Now()
		its, cancel := context.WithTimeout(ctx, v.kmsDeadline)
		keys, err := v.keys.get(its, f.id, f.node)
		cancel()
		s.end(time.Since(began), err)
		var bad *sidecarError
		var unread *unreadSidecarError
		switch {
		case err == nil:
			return keys, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.As(err, &bad), errors.As(err, &unread):
			return nil, err
		case errors.Is(err, kmsprovider.ErrThrottled) && s.patient():
			continue
		case IsRefusal(err):
			return nil, errRefused{err}
		}
		return nil, fmt.Errorf("unlock %q: %w", f.node.Path(), err)
	}
}

// begin waits until another call may be under way.
func (s *keyStage) begin(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.wake)()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		rest := time.Until(s.pace.rest)
		if rest <= 0 && s.calls < s.pace.width() {
			s.calls++
			return nil
		}
		if rest > 0 {
			time.AfterFunc(rest, s.wake)
		}
		s.ready.Wait()
	}
}

func (s *keyStage) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready.Broadcast()
}

func (s *keyStage) end(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	switch {
	case err == nil:
		s.pace.took(took)
	case errors.Is(err, kmsprovider.ErrThrottled):
		s.pace.failed(time.Now(), err)
	}
	s.ready.Broadcast()
}

// patient tells whether a KMS that asks for less is to be asked again.
func (s *keyStage) patient() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pace.failures < 8
}
