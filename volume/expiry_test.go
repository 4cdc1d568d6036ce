package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// kernel stands for a mount's: what it does when pages are to be dropped.
type kernel struct {
	mu      sync.Mutex
	dropped []*Node
	onDrop  func(n *Node)
}

func (k *kernel) DropFile(n *Node) {
	k.mu.Lock()
	k.dropped = append(k.dropped, n)
	onDrop := k.onDrop
	k.mu.Unlock()
	if onDrop != nil {
		onDrop(n)
	}
}

func (k *kernel) DropAll() { k.DropFile(nil) }

func (k *kernel) whenDropping(call func(n *Node)) {
	k.mu.Lock()
	k.onDrop = call
	k.mu.Unlock()
}

func cachedKeys(v *Volume, id crypto.ID) *fileKeys {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	return v.keys.m[id].keys
}

func (k *kernel) drops(n *Node) (times int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.dropped {
		if d == n {
			times++
		}
	}
	return times
}

const testTTL = 16 * time.Minute // a step is a minute

// withTTL opens the volume in a bubble where time passes at once, and closes it.
func (b *bench) withTTL(run func(t *testing.T, v *Volume, k *kernel)) {
	b.t.Helper()
	synctest.Test(b.t.(*testing.T), func(t *testing.T) {
		began := time.Now()
		v, err := b.tryOpen(func(o *Options) {
			o.KeyTTL = testTTL
			o.Uptime = func() time.Duration { return time.Since(began) }
		})
		if err != nil {
			t.Fatal(err)
		}
		defer b.close(v)
		k := &kernel{}
		v.SetCache(k)
		run(t, v, k)
	})
}

// pass lets time pass, and what is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (b *bench) sidecars() (n int) {
	_ = filepath.WalkDir(filepath.Join(b.dir, ".kmsfs", "keys"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return nil
	})
	return n
}

func TestAKeyLivesAsLongAsItsTimeAndNoLonger(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		b := newBench(t, mode)
		b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
			n := createFile(t, v.Root(), "file", pattern(5000, 1))
			synctest.Wait()
			if s := v.Stats(); s.CachedKeys != 1 || s.PooledKeys == 0 {
				t.Fatalf("at first %+v", s)
			}
			began := b.kms.count("Decrypt")
			decrypts := func() int { return b.kms.count("Decrypt") - began }
			pass(testTTL - 2*time.Minute)
			readAll(t, n)
			if s := v.Stats(); s.CachedKeys != 1 || decrypts() != 1 { // that of the volume key
				t.Errorf("%s: shortly before the end %+v, %d calls of Decrypt", mode, s, decrypts())
			}
			pass(2 * time.Minute)
			if s := v.Stats(); s.CachedKeys != 0 || s.PooledKeys != 0 {
				t.Errorf("%s: at the end %+v", mode, s)
			}
			if got := b.sidecars(); got != 1 {
				t.Errorf("%s: %d sidecars are left, want that of the file", mode, got)
			}
			made := b.kms.count("GenerateDataKey")
			pass(3 * testTTL)
			if got := b.kms.count("GenerateDataKey"); got != made {
				t.Errorf("%s: a mount that creates nothing asked for %d data keys", mode, got-made)
			}
			before := decrypts()
			readAll(t, n)
			want := 1
			if mode == ModeVolume {
				want = 0
			}
			if got := decrypts() - before; got != want || v.Stats().CachedKeys != 1 {
				t.Errorf("%s: reading it afterwards called Decrypt %d times, want %d", mode, got, want)
			}
			writeAll(t, n, pattern(100, 2), 4000)
			createFile(t, v.Root(), "another", pattern(10, 3))
			checkSeal(t, n)
		})
	}
}

func TestPagesAreWrittenBackBeforeTheirKeyGoes(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(5000, 1))
		idle := createFile(t, v.Root(), "idle", pattern(10, 1))
		keys := cachedKeys(v, fileID(t, n))
		late := pattern(4096, 9)
		k.whenDropping(func(dropped *Node) {
			if dropped != n || k.drops(n) > 1 {
				return
			}
			b.kms.setFail(func(string) error { return errors.New("the KMS must not be asked") })
			if _, err := n.WriteBack(context.Background(), late, 0); err != nil {
				t.Errorf("write back: %v", err)
			}
			b.kms.setFail(nil)
		})
		pass(testTTL)
		if k.drops(n) != 2 || k.drops(idle) != 1 {
			t.Errorf("pages were dropped %d times of the file in use, want 2, and %d of the other, want 1", k.drops(n), k.drops(idle))
		}
		if keys.acquire() {
			t.Error("the keys can still be used")
		}
		if err := keys.blocks.Open(make([]byte, 1), make([]byte, 41), 0); !errors.Is(err, crypto.ErrWiped) {
			t.Errorf("the keys are not wiped: %v", err)
		}
		k.whenDropping(nil)
		if got := readAll(t, n); !slices.Equal(got[:4096], late) {
			t.Error("what was written back is not there")
		}
	})
}

func TestAWriteThatNeedsANewKeySaysWhyThereIsNone(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		content := pattern(5000, 1)
		n := createFile(t, v.Root(), "file", content)
		pass(testTTL)
		for _, cause := range []error{kmsprovider.ErrKeyDisabled, kmsprovider.ErrAccessDenied, kmsprovider.ErrUnavailable} {
			b.kms.setFail(func(string) error { return cause })
			if _, err := n.WriteBack(context.Background(), pattern(4096, 2), 0); !errors.Is(err, cause) {
				t.Errorf("write: %v, want %v", err, cause)
			}
			if _, err := tryReadAll(n); !errors.Is(err, cause) {
				t.Errorf("read: %v, want %v", err, cause)
			}
		}
		b.kms.setFail(nil)
		if got := readAll(t, n); !slices.Equal(got, content) {
			t.Error("a refused write changed the file")
		}
	})
}

func TestACallThatUsesAKeyKeepsItUntilItEnds(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		f, err := n.openFile(false)
		if err != nil {
			t.Fatal(err)
		}
		defer f.release()
		keys, err := f.unlock(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		pass(testTTL)
		if v.Stats().CachedKeys != 0 || keys.acquire() {
			t.Error("the key is given out after its time")
		}
		record := make([]byte, crypto.CipherLen(10))
		if err := f.readSpan(record, 0); err != nil {
			t.Fatal(err)
		}
		if err := keys.blocks.Open(make([]byte, 10), record, 0); err != nil {
			t.Errorf("the call that uses it cannot go on: %v", err)
		}
		keys.release()
		if err := keys.blocks.Open(make([]byte, 10), record, 0); !errors.Is(err, crypto.ErrWiped) {
			t.Errorf("after the last call: %v, want %v", err, crypto.ErrWiped)
		}
	})
}

func TestCopiesThatShareAnIDAreAllDropped(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		if _, err := v.Root().Link(n, "link"); err != nil { // so that a copy is not bound
			t.Fatal(err)
		}
		raw, err := os.ReadFile(b.backingFile(n))
		if err != nil {
			t.Fatal(err)
		}
		twin := createFile(t, v.Root(), "twin", nil)
		if err := os.WriteFile(b.backingFile(twin), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		twin.Forget()
		twin = lookup(t, v.Root(), "twin")
		readAll(t, twin)
		readAll(t, n)
		if got := v.Stats().CachedKeys; got != 1 {
			t.Fatalf("%d keys are cached, want one for both", got)
		}
		pass(testTTL)
		if k.drops(n) == 0 || k.drops(twin) == 0 {
			t.Errorf("pages were dropped %d and %d times", k.drops(n), k.drops(twin))
		}
	})
}

func TestAForgottenFileGivesItsKeyUpAtOnce(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		keys := cachedKeys(v, fileID(t, n))
		n.Forget()
		if keys.acquire() || v.Stats().CachedKeys != 0 {
			t.Error("the key is still there")
		}
		pass(testTTL)
		if k.drops(n) != 0 {
			t.Error("pages of a forgotten file were dropped")
		}
	})
}
