package volume

import (
	"context"
	"sync/atomic"
	"testing"
)

// opensAndReads counts what a first read does before it comes to content.
type opensAndReads struct {
	System
	n atomic.Int64
}

func (c *opensAndReads) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	c.n.Add(1)
	return c.System.Openat(dirfd, name, flags, mode)
}

func (c *opensAndReads) Pread(fd int, b []byte, off int64) (int, error) {
	c.n.Add(1)
	return c.System.Pread(fd, b, off)
}

func TestAForeseenFileIsReadWithOneCallAndNoKMSWasAsked(t *testing.T) {
	for _, mode := range []KeyMode{ModeVolume, ModeFile} {
		b := newBench(t, mode)
		v := b.open()
		createFile(t, v.Root(), "file", []byte("content"))
		v.Close()

		calls := &opensAndReads{}
		v = b.open(func(o *Options) { o.Backing = calls })
		n := lookup(t, v.Root(), "file")
		decrypts := b.kms.count("Decrypt")
		n.Foresee()
		if got := b.kms.count("Decrypt") - decrypts; got != 0 {
			t.Errorf("mode %v: to foresee a file asked the KMS %d times", mode, got)
		}
		before := calls.n.Load()
		got := make([]byte, 7)
		if _, err := n.ReadAt(context.Background(), got, 0); err != nil || string(got) != "content" {
			t.Errorf("mode %v: read %q, %v", mode, got, err)
		}
		if n := calls.n.Load() - before; mode == ModeVolume && n != 1 {
			t.Errorf("mode %v: the read made %d calls, want 1", mode, n)
		}
		v.Close()
		n.Foresee() // does nothing any more
	}
}
