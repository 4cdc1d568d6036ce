package integration

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// gate is a KMS that makes who wants a key wait until it opens.
type gate struct {
	kmsprovider.Provider
	entered chan struct{}                 // by who waits
	shut    atomic.Pointer[chan struct{}] // closed to open the gate; nil if it is open
}

func (g *gate) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if shut := g.shut.Load(); shut != nil {
		g.entered <- struct{}{}
		select {
		case <-*shut:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return g.Provider.Decrypt(ctx, keyID, wrapped, ec)
}

// A local file system does not give up what was asked of it when the program is
// signalled, and the runtime of Go signals its threads all the time.
func TestSignalsInterruptNoOperation(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	want := bytes.Repeat([]byte("content "), 3000)
	if err := os.WriteFile(path, want, 0o644); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	kms, err := m.keys.Provider(t.Context(), "local")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Provider: kms, entered: make(chan struct{}, 10)}
	m.keys = kmsprovider.NewRegistry()
	m.keys.Register("local", func(context.Context) (kmsprovider.Provider, error) { return g, nil })

	for _, c := range []struct {
		what string
		call func(fd int) error
	}{
		{"truncate", func(int) error { return unix.Truncate(path, 20_000) }},
		{"read", func(fd int) error { _, err := unix.Pread(fd, make([]byte, 100), 0); return err }},
		{"write", func(fd int) error {
			if _, err := unix.Pwrite(fd, want[:10], 0); err != nil {
				return err
			}
			return unix.Fsync(fd)
		}},
		{"fallocate", func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 19_000, 1000)
		}},
	} {
		m.mount() // no key is known
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		shut := make(chan struct{})
		g.shut.Store(&shut)
		thread, done := make(chan int), make(chan error)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			thread <- unix.Gettid()
			done <- c.call(fd)
		}()
		tid := <-thread
		<-g.entered
		for range 20 {
			if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
				t.Error(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		close(shut)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		g.shut.Store(nil)
		unix.Close(fd)
		m.unmount()
	}
	m.mount()
	want = want[:20_000]
	clear(want[19_000:])
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, that differ", len(got), err)
	}
}
