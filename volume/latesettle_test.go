package volume

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// The check that a mount starts after a power cut meets files whose last change the
// store took in part, and refuses to take whole. It sees them as programs do.
func TestACheckAfterAPowerCutSeesAFileAsItsLateChangeMakesIt(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(t *testing.T, n *Node) error
	}{
		{"write", func(t *testing.T, n *Node) error {
			_, err := n.WriteAt(t.Context(), pattern(4*blk, 2), 2*blk)
			return err
		}},
		{"append", func(t *testing.T, n *Node) error {
			_, err := n.WriteAt(t.Context(), pattern(3*blk, 2), 6*blk)
			return err
		}},
		{"cut", func(t *testing.T, n *Node) error { return n.Truncate(t.Context(), blk+50) }},
		{"lengthen", func(t *testing.T, n *Node) error { return n.Truncate(t.Context(), 9*blk+50) }},
		{"punch a hole", func(t *testing.T, n *Node) error { return n.Allocate(t.Context(), blk, 2*blk, punchHole) }},
	} {
		for _, known := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				b := newBench(t, ModeVolume)
				v := b.open()
				createFile(t, v.Root(), "file", pattern(5*blk+100, 1))
				b.powerCut(v)
				k := &tap{Backing: System{}, through: idle}
				v = b.open(withTap(k))
				n := lookup(t, v.Root(), "file")
				createFile(t, v.Root(), "other", pattern(10, 1)) // there is a redo slot
				quietPool(v)
				changes := 0
				k.turn(func(c call, do func(int) error) error {
					if !c.changes {
						return do(c.bytes)
					}
					if changes++; changes > 1 {
						return unix.ENOSPC
					}
					return do(max(1, c.bytes/2))
				})
				if err := c.change(t, n); !errors.Is(err, unix.ENOSPC) || v.late.count.Load() != 1 {
					t.Fatalf("%v, %d late changes", err, v.late.count.Load())
				}
				if !known {
					n.Forget()
				}
				want := readAll(t, n)
				r := settle(t, v)
				if len(r.Findings) > 0 {
					t.Errorf("as long as the store refuses it finds:%s", show(r))
				}
				k.turn(idle)
				b.close(v)
				v = b.open()
				n = lookup(t, v.Root(), "file")
				if got := readAll(t, n); v.relaxed || !bytes.Equal(got, want) {
					t.Errorf("relaxed %v, %d bytes of %d", v.relaxed, len(got), len(want))
				}
				checkSeal(t, n)
			})
		}
	}
}

// What the store did not give was not looked at, nor was what is below it.
func TestACheckAfterAPowerCutSettlesNothingWhereADirectoryCannotBeRead(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	furnish(t, v.Root())
	b.powerCut(v)
	k := &tap{Backing: System{}, through: idle}
	v = b.open(withTap(k))
	for _, name := range []string{recordName, longName} {
		var failed atomic.Bool
		k.turn(func(c call, do func(int) error) error {
			if c.op == "statx" && (c.name == name || name == longName && isLongNameFile(c.name)) && !failed.Swap(true) {
				return unix.EIO
			}
			return idle(c, do)
		})
		r, err := v.Settle(t.Context())
		if err != nil || r.Complete || v.settled.Load() || !failed.Load() {
			t.Errorf("%s: failed %v, %v, complete %v, settled %v", name, failed.Load(), err, r.Complete, v.settled.Load())
		}
	}
	k.turn(idle)
	settle(t, v)
}
