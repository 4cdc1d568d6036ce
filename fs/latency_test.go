package fs

import (
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeLatency opens a file that stands in for the device, and keeps all that was
// written to it, one after the other.
func fakeLatency(t *testing.T, quiet time.Duration) (l *lowLatency, written func() []int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cpu_dma_latency")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := openLatency(path, quiet, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, func() (all []int32) {
		b, err := os.ReadFile(path)
		if err != nil || len(b)%4 != 0 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		for ; len(b) > 0; b = b[4:] {
			all = append(all, int32(binary.NativeEndian.Uint32(b)))
		}
		return all
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestLowLatencyIsHeldWhileRequestsAreUnderWayAndGivenBackAfterQuiet(t *testing.T) {
	const quiet = 10 * time.Millisecond
	l, written := fakeLatency(t, quiet)
	want := func(values ...int32) {
		t.Helper()
		if got := written(); !slices.Equal(got, values) {
			t.Fatalf("written were %d, want %d", got, values)
		}
	}
	time.Sleep(5 * quiet)
	want() // nothing was asked
	l.begin()
	want(0)
	time.Sleep(5 * quiet)
	want(0) // it takes a while
	for range 1000 {
		l.begin()
		l.end()
	}
	want(0)
	l.end()
	waitFor(t, "given back", func() bool { return len(written()) == 2 })
	want(0, noWish)
	if l.held.Load() {
		t.Error("it is held")
	}
	l.begin()
	want(0, noWish, 0)
	l.end()
	l.close()
	l.begin() // of an unmounted file system
	l.end()
	time.Sleep(3 * quiet)
	want(0, noWish, 0)
	if got := l.holds.Load(); got != 2 {
		t.Errorf("held %d times, want 2", got)
	}
}

func TestLowLatencyIsHeldDuringEveryOneOfManyRequests(t *testing.T) {
	l, written := fakeLatency(t, 50*time.Microsecond)
	var programs sync.WaitGroup
	for range 4 {
		programs.Go(func() {
			for i := range 300 {
				l.begin()
				l.mu.Lock()
				all := written()
				l.mu.Unlock()
				if last := all[len(all)-1]; last != 0 {
					t.Errorf("%d is wished for while a request is under way", last)
				}
				l.end()
				time.Sleep(time.Duration(i%4) * 50 * time.Microsecond)
			}
		})
	}
	programs.Wait()
	waitFor(t, "given back", func() bool { all := written(); return all[len(all)-1] == noWish })
	all := written()
	for i, v := range all {
		if want := []int32{0, noWish}[i%2]; v != want {
			t.Fatalf("written were %d", all)
		}
	}
	if got := l.holds.Load(); got != uint64(len(all)/2) || got < 2 {
		t.Errorf("held %d times, %d were written", got, len(all))
	}
	l.close()
}

func TestWithoutADeviceLowLatencyIsAWarning(t *testing.T) {
	var log strings.Builder
	l, err := openLatency(filepath.Join(t.TempDir(), "nothing"), time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)))
	if l != nil || err != nil || strings.Count(log.String(), "latency=low has no effect") != 1 {
		t.Errorf("%v, %v, %s", l, err, &log)
	}
	if l, err := openLatency(t.TempDir(), time.Millisecond, slog.Default()); l != nil || err == nil {
		t.Errorf("a directory is a device: %v, %v", l, err)
	}
}

func TestADeviceThatTakesNothingIsWarnedOfOnce(t *testing.T) {
	var log strings.Builder
	l, err := openLatency("/dev/full", time.Millisecond, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		l.begin()
		l.end()
	}
	l.close()
	if n := strings.Count(log.String(), "latency=low has no effect any more"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
}
