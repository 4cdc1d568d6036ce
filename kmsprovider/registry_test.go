package kmsprovider_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/kmsprovider"
)

// named is a provider that only has a name and can be closed.
type named struct {
	kmsprovider.Provider
	name   string
	err    error
	closed *[]string
}

func (n *named) Name() string { return n.name }
func (n *named) Close() error { *n.closed = append(*n.closed, n.name); return n.err }

// unclosable is a provider that is no io.Closer.
type unclosable struct{ kmsprovider.Provider }

func TestProvidersAreOpenedOnceAndOnFirstUse(t *testing.T) {
	r := kmsprovider.NewRegistry()
	var opens atomic.Int32
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) {
		opens.Add(1)
		time.Sleep(10 * time.Millisecond)
		return &named{name: "local", closed: new([]string)}, nil
	})
	if opens.Load() != 0 {
		t.Fatal("opened before its first use")
	}
	var group sync.WaitGroup
	got := make([]kmsprovider.Provider, 16)
	for i := range got {
		group.Go(func() {
			var err error
			if got[i], err = r.Provider(t.Context(), "local"); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if opens.Load() != 1 {
		t.Errorf("opened %d times", opens.Load())
	}
	for _, p := range got {
		if p == nil || p != got[0] {
			t.Errorf("callers got different providers")
		}
	}
}

func TestAFailedOpenIsTriedAgain(t *testing.T) {
	r := kmsprovider.NewRegistry()
	broken := errors.New("wrong passphrase")
	tries := 0
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) {
		if tries++; tries == 1 {
			return nil, broken
		}
		return &named{name: "local", closed: new([]string)}, nil
	})
	if _, err := r.Provider(t.Context(), "local"); !errors.Is(err, broken) || !strings.Contains(err.Error(), "local") {
		t.Fatalf("first try: %v", err)
	}
	if p, err := r.Provider(t.Context(), "local"); err != nil || p.Name() != "local" {
		t.Fatalf("second try: %v", err)
	}
}

func TestAnUnknownProviderIsRefusedWithTheKnownOnes(t *testing.T) {
	r := kmsprovider.NewRegistry()
	never := func(context.Context) (kmsprovider.Provider, error) { t.Error("opened"); return nil, nil }
	if _, err := r.Provider(t.Context(), "aws"); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("empty registry: %v", err)
	}
	r.Register("local", never)
	r.Register("age", never)
	_, err := r.Provider(t.Context(), "vault")
	if !errors.Is(err, kmsprovider.ErrInvalidInput) || !strings.Contains(err.Error(), `"vault"`) || !strings.Contains(err.Error(), "age, local") {
		t.Error(err)
	}
}

func TestAWaiterGivesUpWithItsOwnContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := kmsprovider.NewRegistry()
		release := make(chan struct{})
		r.Register("slow", func(context.Context) (kmsprovider.Provider, error) {
			<-release
			return &named{name: "slow", closed: new([]string)}, nil
		})
		first := make(chan error, 1)
		go func() { _, err := r.Provider(t.Context(), "slow"); first <- err }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Provider(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiter: %v", err)
		}
		close(release)
		if err := <-first; err != nil {
			t.Errorf("opener: %v", err)
		}
		if _, err := r.Provider(ctx, "slow"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its time: %v", err)
		}
	})
}

func TestCloseClosesWhatWasOpenedLastFirst(t *testing.T) {
	r := kmsprovider.NewRegistry()
	var closed []string
	failing := errors.New("cannot close")
	for _, p := range []*named{{name: "a", closed: &closed, err: failing}, {name: "b", closed: &closed}, {name: "unused", closed: &closed}} {
		r.Register(p.name, func(context.Context) (kmsprovider.Provider, error) { return p, nil })
	}
	r.Register("plain", func(context.Context) (kmsprovider.Provider, error) { return unclosable{}, nil })
	for _, name := range []string{"a", "b", "plain"} {
		if _, err := r.Provider(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); !errors.Is(err, failing) {
		t.Errorf("close: %v", err)
	}
	if !slices.Equal(closed, []string{"b", "a"}) {
		t.Errorf("closed %v", closed)
	}
	if err := r.Close(); err != nil || len(closed) != 2 {
		t.Errorf("second close: %v, closed %v", err, closed)
	}
	if _, err := r.Provider(t.Context(), "a"); !errors.Is(err, kmsprovider.ErrUnavailable) {
		t.Errorf("after close: %v", err)
	}
}

func TestAProviderOpenedDuringCloseIsClosed(t *testing.T) {
	r := kmsprovider.NewRegistry()
	var closed []string
	r.Register("late", func(context.Context) (kmsprovider.Provider, error) {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		return &named{name: "late", closed: &closed}, nil
	})
	if _, err := r.Provider(t.Context(), "late"); !errors.Is(err, kmsprovider.ErrUnavailable) {
		t.Errorf("provider: %v", err)
	}
	if !slices.Equal(closed, []string{"late"}) {
		t.Errorf("closed %v", closed)
	}
}

func TestRegisteringTwiceOrNothingPanics(t *testing.T) {
	open := func(context.Context) (kmsprovider.Provider, error) { return nil, nil }
	for name, register := range map[string]func(r *kmsprovider.Registry){
		"twice":       func(r *kmsprovider.Registry) { r.Register("a", open); r.Register("a", open) },
		"no name":     func(r *kmsprovider.Registry) { r.Register("", open) },
		"no function": func(r *kmsprovider.Registry) { r.Register("a", nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			register(kmsprovider.NewRegistry())
		}()
	}
}

func TestPlaintextsHaveOneTo4096Bytes(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 1: true, 4096: true, 4097: false} {
		if err := kmsprovider.CheckPlaintext(size); (err == nil) != ok || !ok && !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
