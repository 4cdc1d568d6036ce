package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// newPresence makes the presence of a mount that there is not.
func newPresence(t *testing.T) (*presence, string) {
	t.Helper()
	device := fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name())
	l, err := listen(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &presence{listener: l}, device
}

func TestAWatcherWaitsUntilTheProcessEnds(t *testing.T) {
	p, device := newPresence(t)
	w := watch(device)
	if w == nil || w.pid != os.Getpid() {
		t.Fatalf("watcher %+v, want one of process %d", w, os.Getpid())
	}
	defer w.close()
	p.gone()
	p.finish(nil)
	if err := w.wait(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "has not finished") {
		t.Fatalf("while the process runs: %v", err)
	}
	closeWatchers(p) // as the process's end does
	if err := w.wait(patience); err != nil {
		t.Fatalf("after the process's end: %v", err)
	}
}

func TestAWatcherIsToldOfAnUncleanEnd(t *testing.T) {
	p, device := newPresence(t)
	w := watch(device)
	defer w.close()
	p.gone()
	p.finish(errors.New("disk full"))
	closeWatchers(p)
	if err := w.wait(patience); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Fatalf("watcher was told %v", err)
	}
}

func TestANameIsFreeAsSoonAsItsMountIsGone(t *testing.T) {
	p, device := newPresence(t)
	w := watch(device)
	defer w.close()
	gone := make(chan struct{})
	time.AfterFunc(20*time.Millisecond, func() {
		p.gone()
		close(gone)
	})
	l, err := listen(device)
	if err != nil {
		t.Fatalf("the next mount on the same device number: %v", err)
	}
	l.Close()
	<-gone
	closeWatchers(p)
}

func TestWithoutAPresenceThereIsNothingToWaitFor(t *testing.T) {
	w := watch("no such device")
	if w != nil {
		t.Fatal("watches nothing")
	}
	if err := w.wait(time.Hour); err != nil {
		t.Fatal(err)
	}
	w.close()
}

func closeWatchers(p *presence) {
	for _, fd := range p.watchers {
		os.NewFile(uintptr(fd), "watcher").Close()
	}
}
