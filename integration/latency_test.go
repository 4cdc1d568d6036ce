package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"kmsfs/fs"
	"kmsfs/volume"
)

// openings counts the descriptors of this process that lead to path.
func openings(t *testing.T, path string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path {
			n++
		}
	}
	return n
}

func TestAMountAsksForLowLatencyOnlyWhileItIsUsed(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	device := filepath.Join(t.TempDir(), "cpu_dma_latency")
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.mount(func(o *fs.Options) { o.LowLatency = device })
	if n := openings(t, device); n != 1 {
		t.Errorf("the device is open %d times, want once", n)
	}
	waitUntil := func(held bool) *fs.Latency {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if l := m.Mount.Latency(); l.Held == held {
				return l
			}
			if time.Now().After(end) {
				t.Fatalf("held is %v for a minute", !held)
			}
		}
	}
	before := waitUntil(false)
	const times = 3
	for i := range times {
		if err := os.WriteFile(filepath.Join(m.Dir, fmt.Sprint(i)), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.settle() // also of what the kernel sends by itself
		waitUntil(false)
	}
	l := m.Mount.Latency()
	if n := l.Holds - before.Holds; n < times {
		t.Errorf("low latency was asked for %d times, want %d at least", n, times)
	}
	// Each asking is a 0, and after it the most that there is.
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		st, err := os.Stat(device)
		if err != nil {
			t.Fatal(err)
		}
		if l := m.Mount.Latency(); st.Size() == int64(8*l.Holds) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%d bytes were written in %d times", st.Size(), l.Holds)
		}
	}
	if n := openings(t, device); n != 1 {
		t.Errorf("after use the device is open %d times, want once", n)
	}
	m.unmount()
	if n := openings(t, device); n != 0 {
		t.Errorf("after unmounting the device is open %d times", n)
	}
	m.mount()
	if l := m.Mount.Latency(); l != nil {
		t.Errorf("nobody asked for it, and it is %+v", l)
	}
}
