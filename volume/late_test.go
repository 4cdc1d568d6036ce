package volume

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// A store that takes half of a write, and then nothing for a while.
func TestAFileWithALateChangeIsReadAndNotChanged(t *testing.T) {
	b := newBench(t, ModeFile)
	k := &tap{Backing: System{}, through: idle}
	v := b.open(withTap(k))
	before := pattern(5*blk+100, 1)
	n := createFile(t, v.Root(), "file", before)
	other := createFile(t, v.Root(), "other", before)
	quietPool(v)
	waiting := must(n.openFile(true))(t) // by a writer that is let in, and waits
	took := false
	refusing := func(c call, do func(int) error) error {
		switch {
		case !c.changes:
			return do(c.bytes)
		case c.op == "pwrite" && c.bytes > 2*blk && !took:
			took = true
			return do(c.bytes / 2)
		}
		return unix.ENOSPC
	}
	k.turn(refusing)
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", what, err)
		}
	}
	write := func() error { _, err := n.WriteAt(t.Context(), pattern(4*blk, 2), 2*blk); return err }
	refused("write", write())
	if !took || v.late.count.Load() != 1 {
		t.Fatalf("half of it taken %v, %d late changes", took, v.late.count.Load())
	}
	want := append(bytes.Clone(before[:2*blk]), pattern(4*blk, 2)...)
	reads := func() {
		t.Helper()
		if got := readAll(t, n); !bytes.Equal(got, want) {
			t.Errorf("%d bytes that differ", len(got))
		}
		if got := readAll(t, other); !bytes.Equal(got, before) {
			t.Error("the other file differs")
		}
	}
	reads()
	refused("another write", write())
	k.turn(idle) // now it would be taken
	refused("a write that waited", waiting.writeAt(t.Context(), pattern(10, 3), 5, false))
	k.turn(refusing)
	refused("fsync", n.Sync(false))
	refused("truncate", n.Truncate(t.Context(), 10))
	waiting.release()
	n.Forget() // nothing that is remembered helps
	reads()
	if at := must(n.SeekData(3 * blk))(t); at != 3*blk {
		t.Errorf("data at %d", at)
	}
	if err := v.Close(); err == nil {
		t.Error("a clean end, with a change half made")
	}

	b.log.Reset()
	v = b.open()
	n, other = lookup(t, v.Root(), "file"), lookup(t, v.Root(), "other")
	reads()
	checkSeal(t, n)
	writeAll(t, n, pattern(10, 3), 5)
	if v.relaxed || !bytes.Contains(b.log.Bytes(), []byte("changes_finished=1")) {
		t.Errorf("relaxed %v; log: %s", v.relaxed, b.log)
	}
}

func TestALateChangeIsMadeWhenTheStoreIsWellAgain(t *testing.T) {
	b := newBench(t, ModeVolume)
	k := &tap{Backing: System{}, through: idle}
	v := b.open(withTap(k))
	n := createFile(t, v.Root(), "file", pattern(5*blk+100, 1))
	quietPool(v)
	for i, change := range []func() error{
		func() error { return n.Truncate(t.Context(), blk+50) },
		func() error { return n.Truncate(t.Context(), 7*blk+50) },
		func() error { return n.Allocate(t.Context(), blk, 2*blk, punchHole) },
	} {
		changes := 0
		k.turn(func(c call, do func(int) error) error {
			if c.changes {
				if changes++; changes > 1 {
					return unix.EROFS
				}
			}
			return do(c.bytes)
		})
		if err := change(); !errors.Is(err, unix.EROFS) {
			t.Fatalf("change %d: %v", i, err)
		}
		late := readAll(t, n)
		if a := must(n.Attr())(t); int(a.Size) != len(late) {
			t.Errorf("change %d: %d bytes of %d", i, len(late), a.Size)
		}
		k.turn(idle)
		if got := readAll(t, n); !bytes.Equal(got, late) {
			t.Errorf("change %d: made otherwise than it was read", i)
		}
		checkSeal(t, n)
		if c := v.late.count.Load(); c != 0 {
			t.Errorf("change %d: %d late changes", i, c)
		}
	}
}
