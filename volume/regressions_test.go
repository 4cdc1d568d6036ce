package volume

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Bugs by which other encrypted file systems lost data, and that no other test
// is about. docs/REGRESSIONS.md has the whole list. Others are in badstore_test.go,
// fulldisk_test.go and movednames_test.go.

func TestATruncationThatFailsHalfwayIsDoneOrNot(t *testing.T) {
	const old = 3*crypto.BlockSize + 1000
	for _, size := range []int64{0, 1, 100, crypto.BlockSize, 2*crypto.BlockSize + 5, 3*crypto.BlockSize + 999, 3*crypto.BlockSize + 1001, 9 * crypto.BlockSize, 1 << 20} {
		for _, call := range []string{"pwrite", "ftruncate", "pread"} {
			t.Run(fmt.Sprintf("to %d, failing %s", size, call), func(t *testing.T) {
				for nth := 1; ; nth++ {
					b := newBench(t, ModeVolume)
					k := newFaulty()
					v := b.open(func(o *Options) { o.Backing = k })
					before := pattern(old, 1)
					n := createFile(t, v.Root(), "file", before)
					quietPool(v)
					after := append(bytes.Clone(before[:min(old, size)]), make([]byte, max(0, size-old))...)
					seen := 0
					failNow := func() error {
						if seen++; seen == nth {
							return unix.EIO
						}
						return nil
					}
					k.set(func() {
						k.fail = func(c, _ string) error {
							if c == call {
								return failNow()
							}
							return nil
						}
						if call == "pwrite" {
							k.pwrite = func(b []byte, _ int64) (int, error) { return len(b) / 2, failNow() }
						}
					})
					err := n.Truncate(context.Background(), size)
					k.set(func() { k.fail, k.pwrite = nil, nil })
					if done := seen < nth; done != (err == nil) {
						// A failure in what only tidies up may stay unsaid.
						if err != nil || !bytes.Equal(readAll(t, n), after) {
							t.Fatalf("call %d of %d failed: %v", nth, seen, err)
						}
					}
					for range 2 {
						if got := readAll(t, n); !bytes.Equal(got, after) && (err == nil || !bytes.Equal(got, before)) {
							t.Fatalf("call %d: %v; %d bytes that are neither old nor new", nth, err, len(got))
						}
						checkSeal(t, n)
						b.close(v)
						v = b.open()
						n = lookup(t, v.Root(), "file")
					}
					if err := n.Truncate(context.Background(), size); err != nil {
						t.Fatalf("again: %v", err)
					}
					if got := readAll(t, n); !bytes.Equal(got, after) {
						t.Fatal("again: the file differs")
					}
					b.close(v)
					if seen < nth {
						return
					}
				}
			})
		}
	}
}

func TestAFileOfWhichAPowerCutLeftOnlyTheHeaderCanBeWrittenAnew(t *testing.T) {
	for _, size := range []int64{crypto.HeaderSize, crypto.HeaderSize + 20, crypto.RecordOffset, 10, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := newBench(t, ModeFile)
			v := b.open()
			want := pattern(3*crypto.BlockSize, 1)
			path := b.backingFile(createFile(t, v.Root(), "file", want))
			createFile(t, v.Root(), "other", want)
			b.powerCut(v)
			truncate(t, path, size)
			v = b.open()
			n := lookup(t, v.Root(), "file")
			if size >= crypto.HeaderSize {
				if got := readAll(t, n); len(bytes.TrimLeft(got, "\x00")) != 0 {
					t.Errorf("read %d bytes that nobody wrote", len(got))
				}
				writeAll(t, n, want, 0)
			} else { // no record is left: damage, of this file alone
				_, err := n.ReadAt(context.Background(), make([]byte, 10), 0)
				wantIntegrity(t, err, `"file"`)
				if err := v.Root().Unlink("file"); err != nil {
					t.Fatal(err)
				}
				createFile(t, v.Root(), "file", want)
			}
			v = b.reopened(v)
			for _, name := range []string{"file", "other"} {
				if got := readAll(t, lookup(t, v.Root(), name)); !bytes.Equal(got, want) {
					t.Errorf("%s differs", name)
				}
			}
		})
	}
}

func TestStatAndReadAgreeOnAFileCutAnywhereInItsLastBlocks(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	const size = 2*crypto.BlockSize + 300
	want := pattern(size, 1)
	n := createFile(t, v.Root(), "file", want)
	path := b.backingFile(n)
	b.powerCut(v)
	whole := readPath(t, path)
	v = b.open() // what is cut is accepted now
	for cut := range len(whole) - crypto.HeaderSize + 1 {
		length := len(whole) - cut
		if cut > 400 && cut%97 != 0 && length%crypto.CipherBlockSize > 300 {
			continue
		}
		if err := os.WriteFile(path, whole[:length], 0o644); err != nil {
			t.Fatal(err)
		}
		n := lookup(t, v.Root(), "file")
		n.Forget() // its file state
		a, err := n.Attr()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, size+crypto.BlockSize)
		m, err := n.ReadAt(context.Background(), buf, 0)
		// A tail that was cut does not authenticate; of less than an overhead
		// nothing is left.
		if tail := (length - crypto.HeaderSize) % crypto.CipherBlockSize; tail > crypto.BlockOverhead && cut > 0 {
			wantIntegrity(t, err, `"file"`, fmt.Sprint("block ", a.Size/crypto.BlockSize))
			continue
		}
		if err != nil || uint64(m) != a.Size || !bytes.Equal(buf[:m], want[:m]) {
			t.Fatalf("backing file of %d bytes: stat says %d, read gives %d, %v", length, a.Size, m, err)
		}
	}
}
