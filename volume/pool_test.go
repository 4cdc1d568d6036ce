package volume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// poolKMS stands in for a KMS that takes a while, in a bubble of synctest,
// whose clock only moves when all wait.
type poolKMS struct {
	delay time.Duration
	fail  atomic.Pointer[error]

	mu          sync.Mutex
	calls       int
	under, peak int
	discarded   int
}

func (k *poolKMS) called() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

func (k *poolKMS) make(ctx context.Context) (newFileKey, error) {
	k.mu.Lock()
	k.calls++
	k.under++
	k.peak = max(k.peak, k.under)
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.under--
		k.mu.Unlock()
	}()
	select {
	case <-time.After(k.delay):
	case <-ctx.Done():
		return newFileKey{}, ctx.Err()
	}
	if err := k.fail.Load(); err != nil {
		return newFileKey{}, *err
	}
	return newFileKey{id: crypto.ID{1}, keys: &fileKeys{}}, nil
}

func (k *poolKMS) pool(t *testing.T, patience time.Duration) *keyPool {
	return newKeyPool(t.Context(), patience, k.make, func(newFileKey) { k.discarded++ })
}

// create takes n keys, one every gap, and returns how long it waited in all.
func create(t *testing.T, p *keyPool, n int, gap time.Duration) (waited time.Duration) {
	t.Helper()
	for range n {
		time.Sleep(gap)
		before := time.Now()
		if _, err := p.take(); err != nil {
			t.Fatal(err)
		}
		waited += time.Since(before)
	}
	return waited
}

func TestThePoolHidesWhatAKMSTakes(t *testing.T) {
	for _, c := range []struct {
		delay, gap time.Duration
		calls      int           // under way at most, at the end
		waits      time.Duration // in all of 5,000 creates
	}{
		// What it waits for are the first few round trips, until the pool has
		// found its size.
		{delay: 100 * time.Microsecond, gap: 300 * time.Microsecond, calls: 4, waits: 100 * time.Microsecond},
		{delay: 10 * time.Millisecond, gap: 300 * time.Microsecond, calls: 64, waits: 120 * time.Millisecond},
		{delay: 10 * time.Millisecond, gap: 2 * time.Millisecond, calls: 16, waits: 80 * time.Millisecond},
		{delay: 10 * time.Millisecond, gap: 20 * time.Millisecond, calls: 4, waits: 10 * time.Millisecond},
		// 640 a second is all that 64 calls of 100 ms give.
		{delay: 100 * time.Millisecond, gap: 2 * time.Millisecond, calls: 64, waits: time.Second},
	} {
		t.Run(c.delay.String()+" a call, a file every "+c.gap.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &poolKMS{delay: c.delay}
				p := k.pool(t, time.Minute)
				const files = 5000
				waited := create(t, p, files, c.gap)
				if got := time.Duration(p.waited.Load()); got != waited {
					t.Errorf("it says that callers waited %v, they did %v", got, waited)
				}
				if waited > c.waits {
					t.Errorf("waited for %v in all, want at most %v", waited, c.waits)
				}
				k.mu.Lock()
				k.peak = 0
				k.mu.Unlock()
				create(t, p, 500, c.gap)
				time.Sleep(time.Second) // calls under way end
				p.close()
				if k.peak > c.calls {
					t.Errorf("%d calls under way, want at most %d", k.peak, c.calls)
				}
				if k.calls != files+500+p.unused || p.unused > poolLimit || k.discarded != p.unused {
					t.Errorf("%d calls for %d files, %d unused, %d discarded", k.calls, files+500, p.unused, k.discarded)
				}
				t.Logf("waited %v in all, %d calls under way, %d unused", waited, k.peak, p.unused)
			})
		})
	}
}

func TestThePoolAsksForLittleBeforeItIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &poolKMS{delay: 10 * time.Millisecond}
		p := k.pool(t, time.Minute)
		time.Sleep(time.Hour)
		if n := k.called(); n != 0 {
			t.Errorf("%d calls before the first create", n)
		}
		create(t, p, 1, 0)
		time.Sleep(time.Hour)
		if n := k.called(); n != 2*poolStart+1 {
			t.Errorf("%d calls after one create, want %d", n, 2*poolStart+1)
		}
		p.close()
		if k.discarded != 2*poolStart {
			t.Errorf("%d discarded, want %d", k.discarded, 2*poolStart)
		}
	})
}

func TestThePoolStartsOverAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &poolKMS{delay: 10 * time.Millisecond}
		p := k.pool(t, time.Minute)
		defer p.close()
		create(t, p, 2000, time.Microsecond)
		time.Sleep(time.Hour)
		p.mu.Lock()
		grown := p.target
		p.mu.Unlock()
		create(t, p, 1, 0)
		if grown != poolLimit || p.target != poolStart {
			t.Errorf("target %d, then %d; want %d and %d", grown, p.target, poolLimit, poolStart)
		}
	})
}

func TestAPoolWhoseCallsFailBacksOffAndHeals(t *testing.T) {
	for _, cause := range []error{kmsprovider.ErrThrottled, kmsprovider.ErrAccessDenied} {
		synctest.Test(t, func(t *testing.T) {
			k := &poolKMS{delay: 10 * time.Millisecond}
			p := k.pool(t, time.Minute)
			defer p.close()
			create(t, p, 2000, 300*time.Microsecond)
			time.Sleep(time.Second)
			k.fail.Store(&cause)
			p.mu.Lock()
			ready := len(p.ready)
			p.mu.Unlock()
			before := k.called()
			create(t, p, ready, time.Millisecond) // what is ready serves on, and nobody hears of failures
			failing := k.called() - before
			t.Logf("%d keys were ready; %d calls failed behind them", ready, failing)
			if failing > poolConcurrency+8 {
				t.Errorf("%d calls failed while nobody waited for one", failing)
			}
			time.Sleep(time.Hour)
			for range 3 {
				before = k.called()
				if _, err := p.take(); !errors.Is(err, cause) {
					t.Errorf("take: %v, want %v", err, cause)
				}
				if n := k.called() - before; n != 1 {
					t.Errorf("%d calls for a create that fails, want 1", n)
				}
			}
			k.fail.Store(nil)
			create(t, p, 2000, 300*time.Microsecond)
		})
	}
}

// One of many calls fails: nobody has to hear of it, as long as the others can
// serve those who wait.
func TestAFailureIsSilentWhileOtherCallsCanServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &poolKMS{delay: 10 * time.Millisecond}
		var n atomic.Int32
		p := newKeyPool(t.Context(), time.Minute, func(ctx context.Context) (newFileKey, error) {
			if n.Add(1) == 1 {
				return newFileKey{}, kmsprovider.ErrThrottled
			}
			return k.make(ctx)
		}, func(newFileKey) {})
		defer p.close()
		p.mu.Lock()
		p.fill()
		p.mu.Unlock()
		create(t, p, 1, 0)
	})
}

func TestACallThatHangsIsWaitedForNoLongerThanItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &poolKMS{delay: time.Hour}
		p := k.pool(t, 30*time.Second)
		var group sync.WaitGroup
		for i := range 100 {
			group.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				before := time.Now()
				_, err := p.take()
				if waited := time.Since(before); !errors.Is(err, context.DeadlineExceeded) || waited != 30*time.Second {
					t.Errorf("%v after %v", err, waited)
				}
			})
		}
		group.Wait()
		if len(p.waiters) != 0 {
			t.Errorf("%d still wait", len(p.waiters))
		}
		p.close()
		if k.calls > poolConcurrency {
			t.Errorf("%d calls, want at most %d", k.calls, poolConcurrency)
		}
	})
}

func TestClosingThePoolEndsThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &poolKMS{delay: time.Hour}
		p := k.pool(t, 30*time.Second)
		done := make(chan error)
		go func() {
			_, err := p.take()
			done <- err
		}()
		synctest.Wait()
		p.close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("take: %v", err)
		}
		if _, err := p.take(); !errors.Is(err, context.Canceled) {
			t.Errorf("take of a closed pool: %v", err)
		}
	})
}
