package volume

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// inOrder is what a syncRecorder saw since, in order.
func (s *syncRecorder) inOrder(dir string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, p := range s.paths {
		out = append(out, strings.Replace(p, dir, "", 1))
	}
	s.paths = nil
	return out
}

// TestAStrictMountLogsBlocksBeforeItOverwritesThem counts what strict costs; the
// table in docs/PERFORMANCE.md is of these numbers.
func TestAStrictMountLogsBlocksBeforeItOverwritesThem(t *testing.T) {
	const block = crypto.BlockSize
	ctx := context.Background()
	for _, strict := range []bool{true, false} {
		b := newBench(t, ModeVolume)
		rec := &syncRecorder{}
		v := b.open(func(o *Options) { o.Backing, o.Strict = rec, strict })
		n := createFile(t, v.Root(), "file", nil)
		log := "fdatasync /" + metaDir + "/redo/" + v.session.id.String()
		file := "fdatasync /" + filepath.Join(n.BackingPath())
		rec.inOrder(b.dir)
		write := func(size int, off int64) func() error {
			return func() error { _, err := n.WriteAt(ctx, pattern(size, 1), off); return err }
		}
		for _, step := range []struct {
			what   string
			do     func() error
			logged int
		}{
			{"new blocks", write(4*block, 0), 0},
			{"3 MiB of new blocks", write(3<<20, 4*block), 0},
			{"one block", write(block, block), 1},
			{"1 MiB that begins and ends in blocks", write(1<<20, 10), 1},
			{"3 MiB", write(3<<20, 0), 3},
			{"a cut in a block", func() error { return n.Truncate(ctx, 10*block+100) }, 1},
			{"a short append", write(100, 10*block+100), 1},
			{"an append from the short tail over new blocks", write(5*block, 10*block+200), 1},
			{"a cut between blocks", func() error { return n.Truncate(ctx, 8*block) }, 1},
			{"growth between blocks", func() error { return n.Truncate(ctx, 10*block) }, 0},
			{"a hole that is filled", write(block, 9*block), 1},
			{"a punch", func() error { return n.Allocate(ctx, block, 2*block, punchHole) }, 1},
			{"a rename", func() error { return v.Root().Rename("file", v.Root(), "file2", 0) }, 0},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			want := slices.Repeat([]string{log, file}, step.logged)
			if !strict {
				want = nil
			}
			if got := rec.inOrder(b.dir); !slices.Equal(got, want) {
				t.Errorf("strict %v, %s: flushed %q, want %q", strict, step.what, got, want)
			}
			checkSeal(t, n)
		}
	}
}

// noLog is a store that has no room for the redo slots when they are synced.
type noLog struct {
	System
	fail *bool
}

func (k noLog) Fdatasync(fd int) error {
	var st unix.Stat_t
	if *k.fail && unix.Fstat(fd, &st) == nil && st.Size >= slotSize {
		return unix.ENOSPC
	}
	return k.System.Fdatasync(fd)
}

func TestAWriteWhoseLogFailsChangesNothing(t *testing.T) {
	b := newBench(t, ModeVolume)
	fail := false
	v := b.open(func(o *Options) { o.Backing, o.Strict = noLog{fail: &fail}, true })
	want := pattern(9000, 1)
	n := createFile(t, v.Root(), "file", want)
	path := b.backingFile(n)
	before := readPath(t, path)
	fail = true
	ctx := context.Background()
	for what, do := range map[string]func() error{
		"an overwrite": func() error { _, err := n.WriteAt(ctx, pattern(5000, 2), 0); return err },
		"an append":    func() error { _, err := n.WriteAt(ctx, pattern(10, 2), 9000); return err },
		"a cut":        func() error { return n.Truncate(ctx, 100) },
		"a punch":      func() error { return n.Allocate(ctx, 0, 4096, punchHole) },
	} {
		if err := do(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v", what, err)
		}
		if !bytes.Equal(readPath(t, path), before) {
			t.Errorf("%s changed the backing file", what)
		}
	}
	fail = false
	writeAll(t, n, pattern(5000, 2), 0)
	copy(want, pattern(5000, 2))
	if got := readAll(t, n); !bytes.Equal(got, want) {
		t.Error("the content differs once there is room")
	}
	checkSeal(t, n)
}
