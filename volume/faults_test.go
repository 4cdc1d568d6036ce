package volume

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// faulty is a Backing that counts calls and breaks those that a test wants.
type faulty struct {
	System
	mu     sync.Mutex
	counts map[string]int
	// pwrite, if set, decides about each write: how much of it is done, and
	// with which error.
	pwrite func(b []byte, cipherOff int64) (allowed int, err error)
	// fail, if set, decides about each other call.
	fail func(call, name string) error
}

func newFaulty() *faulty { return &faulty{counts: map[string]int{}} }

func (f *faulty) note(call, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[call]++
	if f.fail != nil {
		return f.fail(call, name)
	}
	return nil
}

func (f *faulty) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.counts)
}

func (f *faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faulty) snapshot() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.counts)
}

func (f *faulty) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if err := f.note("openat", name); err != nil {
		return -1, err
	}
	return f.System.Openat(dirfd, name, flags, mode)
}

func (f *faulty) Close(fd int) error {
	_ = f.note("close", "")
	return f.System.Close(fd)
}

func (f *faulty) Statx(dirfd int, name string, st *unix.Statx_t) error {
	if err := f.note("statx", name); err != nil {
		return err
	}
	return f.System.Statx(dirfd, name, st)
}

func (f *faulty) Pread(fd int, b []byte, off int64) (int, error) {
	if err := f.note("pread", ""); err != nil {
		return 0, err
	}
	return f.System.Pread(fd, b, off)
}

func (f *faulty) Pwrite(fd int, b []byte, off int64) (int, error) {
	f.mu.Lock()
	f.counts["pwrite"]++
	decide := f.pwrite
	f.mu.Unlock()
	if decide != nil {
		allowed, err := decide(b, off)
		if err != nil {
			if allowed > 0 {
				n, werr := f.System.Pwrite(fd, b[:allowed], off)
				if werr != nil {
					return n, werr
				}
				return n, nil // the rest fails with the next call
			}
			return 0, err
		}
	}
	return f.System.Pwrite(fd, b, off)
}

func (f *faulty) Ftruncate(fd int, size int64) error {
	if err := f.note("ftruncate", ""); err != nil {
		return err
	}
	return f.System.Ftruncate(fd, size)
}

func (f *faulty) Fsync(fd int) error {
	if err := f.note("fsync", ""); err != nil {
		return err
	}
	return f.System.Fsync(fd)
}

func (f *faulty) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	if err := f.note("renameat2", on); err != nil {
		return err
	}
	return f.System.Renameat2(od, on, nd, nn, flags)
}

func (f *faulty) Unlinkat(dirfd int, name string, flags int) error {
	if err := f.note("unlinkat", name); err != nil {
		return err
	}
	return f.System.Unlinkat(dirfd, name, flags)
}

// quietPool waits until the pool of data keys is full, and leaves it so: it
// works in the background, and would disturb who counts or breaks calls.
func quietPool(v *Volume) {
	p := v.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.making > 0 {
		p.changed.Wait()
	}
	p.target = 0
}

// budget lets writes of data files through until so many bytes are used up, as
// a full disk does.
func budget(bytes int) func([]byte, int64) (int, error) {
	var mu sync.Mutex
	return func(b []byte, _ int64) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(b) <= bytes {
			bytes -= len(b)
			return len(b), nil
		}
		n := bytes
		bytes = 0
		return n, unix.ENOSPC
	}
}

func TestAWriteThatTheDiskRefusesHalfwayLosesNothing(t *testing.T) {
	const old = 2*crypto.BlockSize + 1000
	for _, c := range []struct {
		what    string
		off, n  int
		allowed []int
	}{
		{"append to a short tail", old, 9000, []int{0, 1, 500, 1040, 2000, 4136, 5000, 9000}},
		{"append over whole blocks, from a block boundary", 2 * crypto.BlockSize, 20000, []int{0, 10, 3000, 4136, 4137, 12000}},
		{"write beyond the end", 5*crypto.BlockSize + 17, 5000, []int{0, 7, 3000, 4136, 4200, 8000}},
		{"overwrite in the middle", 100, 300, []int{0}},
	} {
		for _, allowed := range c.allowed {
			t.Run(c.what, func(t *testing.T) {
				b := newBench(t, ModeVolume)
				k := newFaulty()
				v := b.open(func(o *Options) { o.Backing = k })
				want := pattern(old, 1)
				n := createFile(t, v.Root(), "file", want)
				quietPool(v)
				k.set(func() { k.pwrite = budget(allowed) })
				// The disk has room again for what makes the file consistent:
				// rewriting what is there takes no space.
				tries := 0
				full := k.pwrite
				k.set(func() {
					k.pwrite = func(b []byte, off int64) (int, error) {
						if tries > 0 {
							return len(b), nil
						}
						m, err := full(b, off)
						if err != nil && m == 0 {
							tries++
						}
						return m, err
					}
				})
				_, err := n.WriteAt(context.Background(), pattern(c.n, 7), int64(c.off))
				if !errors.Is(err, unix.ENOSPC) {
					t.Fatalf("got %v, want ENOSPC", err)
				}
				k.set(func() { k.pwrite = nil })
				if got := readAll(t, n); !bytes.Equal(got, want) {
					t.Fatalf("allowed %d: the file differs after a failed write", allowed)
				}
				checkSeal(t, n)
				b.close(v)
				v = b.open()
				n = lookup(t, v.Root(), "file")
				if got := readAll(t, n); !bytes.Equal(got, want) {
					t.Fatal("the file differs after reopening")
				}
				writeAll(t, n, pattern(c.n, 7), int64(c.off))
				checkSeal(t, n)
			})
		}
	}
}

func TestBackingCallsForEachOperationAreFew(t *testing.T) {
	b := newBench(t, ModeVolume)
	k := newFaulty()
	v := b.open(func(o *Options) { o.Backing = k })
	createFile(t, v.Root(), "warm", pattern(10, 1))
	quietPool(v)

	want := func(what string, call func(), calls map[string]int) {
		t.Helper()
		k.reset()
		call()
		if got := k.snapshot(); !maps.Equal(got, calls) {
			t.Errorf("%s: %v, want %v", what, got, calls)
		}
	}
	var n *Node
	want("create", func() {
		var err error
		if n, _, err = v.Root().Create("file", 0o644, Owner{}); err != nil {
			t.Fatal(err)
		}
	}, map[string]int{"openat": 1, "pwrite": 1, "statx": 1})
	want("first write, record and blocks in one", func() { writeAll(t, n, pattern(4096, 1), 0) }, map[string]int{"pwrite": 1})
	want("append of 1 MiB", func() { writeAll(t, n, pattern(1<<20, 1), 4096) }, map[string]int{"pwrite": 2})
	want("overwrite of what was written in this mount", func() { writeAll(t, n, pattern(1<<20, 2), 4096) }, map[string]int{"pwrite": 2})
	want("overwrite of a part of a block", func() { writeAll(t, n, []byte("x"), 5000) }, map[string]int{"pread": 1, "pwrite": 2})
	page := make([]byte, 128<<10)
	want("read", func() {
		if _, err := n.ReadAt(context.Background(), page, 4096); err != nil {
			t.Fatal(err)
		}
	}, map[string]int{"pread": 1})
	want("stat", func() {
		if _, err := n.Attr(); err != nil {
			t.Fatal(err)
		}
	}, map[string]int{"statx": 1})
	want("lookup", func() { lookup(t, v.Root(), "file") }, map[string]int{"statx": 1})
}

func TestAFailingKMSFailsTheOperationAndNothingElse(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	createFile(t, v.Root(), "file", []byte("content"))
	v = b.reopened(v)
	for _, cause := range []error{
		kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrThrottled, kmsprovider.ErrUnavailable,
	} {
		b.kms.setFail(func(string) error { return cause })
		n := lookup(t, v.Root(), "file")
		if _, err := tryReadAll(n); !errors.Is(err, cause) || errors.Is(err, ErrIntegrity) {
			t.Errorf("read: %v, want %v", err, cause)
		}
		if _, _, err := v.Root().Create("new", 0o644, Owner{}); !errors.Is(err, cause) {
			t.Errorf("create: %v, want %v", err, cause)
		}
		if got := list(t, v.Root()); !slices.Equal(got, []string{"file"}) {
			t.Errorf("after a failed create the directory holds %q", got)
		}
		// What needs no key works, emptying included.
		if err := v.Root().Rename("file", v.Root(), "other", 0); err != nil {
			t.Error(err)
		}
		if err := v.Root().Rename("other", v.Root(), "file", 0); err != nil {
			t.Error(err)
		}
		b.kms.setFail(nil)
		if got := readAll(t, n); string(got) != "content" {
			t.Errorf("after the KMS is back: %q", got)
		}
		v = b.reopened(v)
	}
}

func TestSeveralReadersOfAColdFileUnwrapItOnce(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	createFile(t, v.Root(), "file", pattern(100000, 1))
	v = b.reopened(v)
	n := lookup(t, v.Root(), "file")
	before := b.kms.count("Decrypt")
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if got, err := tryReadAll(n); err != nil || len(got) != 100000 {
				t.Errorf("read %d, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if n := b.kms.count("Decrypt") - before; n != 1 {
		t.Errorf("%d Decrypt, want 1", n)
	}
}

func TestRemovedFilesTakeTheirSidecarsWithThem(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	for _, name := range []string{"kept", "removed", "replaced", "source", "linked"} {
		createFile(t, v.Root(), name, []byte(name))
	}
	if _, err := v.Root().Link(lookup(t, v.Root(), "linked"), "linked2"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"removed", "linked", "linked2"} {
		n := lookup(t, v.Root(), name)
		if err := v.Root().Unlink(name); err != nil {
			t.Fatal(err)
		}
		n.Forget()
	}
	if err := v.Root().Rename("source", v.Root(), "replaced", 0); err != nil {
		t.Fatal(err)
	}
	b.close(v)
	var left []string
	err := filepath.WalkDir(filepath.Join(b.dir, metaDir, "keys"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// kept, replaced (by source), and that of the file that was linked, which
	// only a search of the whole tree may remove.
	if len(left) != 3 {
		t.Errorf("%d sidecars are left, want 3: %q", len(left), left)
	}
}

func TestAnUnlinkedFileStaysUsableUntilItIsForgotten(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open(func(o *Options) { o.MaxDescriptors = 1 })
	want := pattern(50000, 1)
	n := createFile(t, v.Root(), "file", want)
	replaced := createFile(t, v.Root(), "replaced", want)
	createFile(t, v.Root(), "source", nil)
	if err := v.Root().Unlink("file"); err != nil {
		t.Fatal(err)
	}
	if err := v.Root().Rename("source", v.Root(), "replaced", 0); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		createFile(t, v.Root(), "other"+string(rune('A'+i)), pattern(100, 1)) // others want descriptors
	}
	for _, n := range []*Node{n, replaced} {
		if got := readAll(t, n); !bytes.Equal(got, want) {
			t.Error("the content differs")
		}
		writeAll(t, n, []byte("more"), 50000)
		if a, err := n.Attr(); err != nil || a.Nlink != 0 || a.Size != 50004 {
			t.Errorf("attributes %+v, %v", a, err)
		}
		if err := n.Sync(false); err != nil {
			t.Error(err)
		}
		mode := uint32(0o600)
		if _, err := n.SetAttr(context.Background(), Change{Mode: &mode}); err != nil {
			t.Error(err)
		}
		n.Forget()
	}
}
