package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

// leaveCalls runs leaveOnSignal with a leave that gives the answers in turn,
// and returns a channel of its calls, closed when leaveOnSignal has returned.
func leaveCalls(ctx context.Context, signals chan os.Signal, gone chan struct{}, unwanted bool, answers ...bool) <-chan int {
	calls := make(chan int, 10)
	go func() {
		defer close(calls)
		n := 0
		leaveOnSignal(ctx, signals, gone, unwanted, func() bool {
			n++
			calls <- n
			return answers[n-1]
		})
	}()
	return calls
}

// wantCall waits for call n, or for the end where n is 0.
func wantCall(t *testing.T, calls <-chan int, n int) {
	t.Helper()
	select {
	case got := <-calls:
		if got != n {
			t.Fatalf("call %d of leave, want %d", got, n)
		}
	case <-time.After(patience):
		t.Fatalf("no call %d of leave", n)
	}
}

func TestASignalBeforeTheMountServedUnmountsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := leaveCalls(ctx, make(chan os.Signal), make(chan struct{}), false, true)
	wantCall(t, calls, 1)
	wantCall(t, calls, 0)
}

func TestAMountThatCouldNotBeLeftIsTriedAgainAtTheNextSignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	calls := leaveCalls(t.Context(), signals, make(chan struct{}), true, false, false, true)
	wantCall(t, calls, 1)
	signals <- syscall.SIGTERM
	wantCall(t, calls, 2)
	signals <- syscall.SIGTERM
	wantCall(t, calls, 3)
	wantCall(t, calls, 0)
}

func TestOnceTheMountIsGoneSignalsTouchNothing(t *testing.T) {
	gone := make(chan struct{})
	calls := leaveCalls(t.Context(), make(chan os.Signal), gone, false)
	close(gone)
	wantCall(t, calls, 0)
}
