package volume

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// backingCalls counts the calls on the backing directory that fn makes in its own
// goroutine: keys that are made ahead in others are not what it waits for. It
// returns them with their numbers, and how many bytes were read and written.
func (b *bench) backingCalls(fn func() error) (calls string, read, written int) {
	b.t.Helper()
	mine := goroutine()
	counts := map[string]int{}
	b.store.(*tap).turn(func(c call, do func(int) error) error {
		if goroutine() != mine {
			return do(c.bytes)
		}
		counts[c.op]++
		switch c.op {
		case "pread":
			read += c.bytes
		case "pwrite":
			written += c.bytes
		}
		return do(c.bytes)
	})
	defer b.store.(*tap).turn(passOn)
	if err := fn(); err != nil {
		b.t.Fatal(err)
	}
	for _, op := range slices.Sorted(maps.Keys(counts)) {
		calls += fmt.Sprintf(" %s %d", op, counts[op])
	}
	return strings.TrimSpace(calls), read, written
}

func passOn(c call, do func(int) error) error { return do(c.bytes) }

// goroutine names the one that calls it.
func goroutine() string {
	var b [64]byte
	name, _, _ := bytes.Cut(b[:runtime.Stack(b[:], false)], []byte(" ["))
	return string(name)
}

// tapped is a bench whose backing directory is counted.
func tapped(t *testing.T, mode KeyMode) *bench {
	t.Helper()
	b := newBench(t, mode)
	b.store = &tap{Backing: System{}, through: passOn}
	return b
}

// pricedOperation is an operation, and what it may cost.
type pricedOperation struct {
	name          string
	run           func() error
	calls         string
	read, written int // bytes
}

func (b *bench) wantBackingCalls(operations []pricedOperation) {
	b.t.Helper()
	for _, c := range operations {
		if calls, read, written := b.backingCalls(c.run); calls != c.calls || read != c.read || written != c.written {
			b.t.Errorf("%s: %s, %d bytes read, %d written; want %s, %d, %d", c.name, calls, read, written, c.calls, c.read, c.written)
		}
	}
}

func creating(dir *Node, name string, owner Owner) func() error {
	return func() error { _, _, err := dir.Create(name, 0o644, owner); return err }
}

func lookingUp(dir *Node, name string) func() error {
	return func() error { _, _, err := dir.Lookup(name); return err }
}

func readingFrom(n *Node, size int, off int64) func() error {
	return func() error {
		got, err := n.ReadAt(context.Background(), make([]byte, size), off)
		if err == nil && got != size {
			err = fmt.Errorf("%d bytes read, want %d", got, size)
		}
		return err
	}
}

func writingTo(n *Node, size int, off int64) func() error {
	return func() error { _, err := n.WriteAt(context.Background(), pattern(size, 7), off); return err }
}

func TestEachOperationMakesAsFewBackingCallsAsTheDesignSays(t *testing.T) {
	const (
		cipher = crypto.CipherBlockSize
		record = crypto.HeaderSize - crypto.RecordOffset
		header = crypto.HeaderSize
	)
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			b := tapped(t, mode)
			v := b.open()
			s := &stage{t: t, v: v}
			s.file("f", 64*blk)
			s.file("small", blk)
			f, small, root := s.node("f"), s.node("small"), v.Root()
			b.wantBackingCalls([]pricedOperation{
				{"create", creating(root, "new", Owner{}), "openat 1 pwrite 1 statx 1", 0, header},
				// One write where the blocks touch the record, else one of the blocks and one of the record.
				{"write the first block", writingTo(small, blk, 0), "pwrite 1", 0, record + cipher},
				{"write other blocks", writingTo(f, 2*blk, 8*blk), "pwrite 2", 0, record + 2*cipher},
				{"append", writingTo(f, blk, 64*blk), "pwrite 2", 0, record + cipher},
				{"append a mebibyte", writingTo(f, maxWrite, 65*blk), "pwrite 2", 0, record + 256*cipher},
				{"write part of a block", writingTo(f, 100, 9*blk+10), "pread 1 pwrite 2", cipher, record + cipher},
				{"write parts of two blocks and all between", writingTo(f, 4*blk, 9*blk+10), "pread 2 pwrite 2", 2 * cipher, record + 5*cipher},
				{"read a block", readingFrom(f, blk, 4*blk), "pread 1", cipher, 0},
				{"read part of one", readingFrom(f, 100, 4*blk+5), "pread 1", cipher, 0},
				{"read a mebibyte", readingFrom(f, maxWrite, 4*blk), "pread 1", 256 * cipher, 0},
				{"read a mebibyte at an odd place", readingFrom(f, maxWrite, 4*blk+1), "pread 1", 257 * cipher, 0},
				{"look up", lookingUp(root, "small"), "statx 1", 0, 0},
				{"stat", func() error { _, err := f.Attr(); return err }, "statx 1", 0, 0},
				{"unlink", func() error { return root.Unlink("new") }, "statx 1 unlinkat 1", 0, 0},
			})
			if os.Geteuid() == 0 {
				b.wantBackingCalls([]pricedOperation{{
					"create for another user", creating(root, "theirs", Owner{Set: true, UID: 1000, GID: 1000}),
					"fchownat 1 openat 1 pwrite 1 statx 2", 0, header,
				}})
			}
		})
	}
}

func TestBackingCallsDoNotGrowWithTheDirectory(t *testing.T) {
	const entries = 10_000
	b := tapped(t, ModeVolume)
	v := b.open()
	root := v.Root()
	var empty, full *Node
	for name, dir := range map[string]**Node{"empty": &empty, "full": &full} {
		n, _, err := root.Mkdir(name, 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		*dir = n
	}
	// What is only done once: directories are opened, a redo slot is made.
	createFile(t, empty, "first", pattern(blk, 1))
	for i := range entries { // FIFOs, which have no keys
		n, _, err := full.Mknod(fmt.Sprint(i), unix.S_IFIFO|0o644, 0, 0, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		n.Forget()
	}
	costs := func(dir *Node) (all []string) {
		for _, c := range []pricedOperation{
			{name: "create", run: creating(dir, "f", Owner{})},
			{name: "look up", run: lookingUp(dir, "f")},
			{name: "look for what is not there", run: func() error {
				if _, _, err := dir.Lookup("g"); err != unix.ENOENT {
					return fmt.Errorf("found: %w", err)
				}
				return nil
			}},
			{name: "look up and write", run: func() error { return writingTo(lookup(t, dir, "f"), blk, 0)() }},
			{name: "rename", run: func() error { return dir.Rename("f", dir, "h", 0) }},
			{name: "unlink", run: func() error { return dir.Unlink("h") }},
		} {
			calls, read, written := b.backingCalls(c.run)
			all = append(all, fmt.Sprintf("%s: %s, %d bytes read, %d written", c.name, calls, read, written))
		}
		return all
	}
	if few, many := costs(empty), costs(full); !slices.Equal(few, many) {
		t.Errorf("in an empty directory:\n%s\nin one of %d entries:\n%s", strings.Join(few, "\n"), entries, strings.Join(many, "\n"))
	}
}
