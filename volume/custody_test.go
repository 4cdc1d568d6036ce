package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// keyCalls are all calls that need keys.
func keyCalls(dir, file, link *Node, l *Listing) map[string]func() error {
	ctx := context.Background()
	size, mode := int64(1), uint32(0o600)
	return map[string]func() error{
		"Lookup":         func() error { _, _, err := dir.Lookup("file"); return err },
		"List":           func() error { _, err := dir.List(); return err },
		"Next":           func() error { _, err := l.Next(); return err },
		"Create":         func() error { _, _, err := dir.Create("new", 0o600, Owner{}); return err },
		"CreateTemp":     func() error { _, _, err := dir.CreateTemp(0o600, Owner{}); return err },
		"Mknod":          func() error { _, _, err := dir.Mknod("fifo", unix.S_IFIFO|0o600, 0, 0, Owner{}); return err },
		"Mkdir":          func() error { _, _, err := dir.Mkdir("sub", 0o700, Owner{}); return err },
		"Symlink":        func() error { _, _, err := dir.Symlink("sym", "target", Owner{}); return err },
		"Link":           func() error { _, err := dir.Link(file, "hard"); return err },
		"Rename":         func() error { return dir.Rename("file", dir, "other", 0) },
		"Unlink":         func() error { return dir.Unlink("file") },
		"Rmdir":          func() error { return dir.Rmdir("file") },
		"Attr":           func() error { _, err := file.Attr(); return err },
		"SetAttr size":   func() error { _, err := file.SetAttr(ctx, Change{Size: &size}); return err },
		"SetAttr mode":   func() error { _, err := file.SetAttr(ctx, Change{Mode: &mode}); return err },
		"Truncate":       func() error { return file.Truncate(ctx, 0) },
		"Readlink":       func() error { _, err := link.Readlink(); return err },
		"ReadAt":         func() error { _, err := file.ReadAt(ctx, make([]byte, 1), 0); return err },
		"WriteAt":        func() error { _, err := file.WriteAt(ctx, []byte("x"), 0); return err },
		"WriteBack":      func() error { _, err := file.WriteBack(ctx, []byte("x"), 0); return err },
		"Allocate":       func() error { return file.Allocate(ctx, 0, 1, 0) },
		"SeekData":       func() error { _, err := file.SeekData(0); return err },
		"SeekHole":       func() error { _, err := file.SeekHole(0); return err },
		"Sync":           func() error { return file.Sync(false) },
		"Getxattr":       func() error { _, err := file.Getxattr("user.a"); return err },
		"Setxattr":       func() error { return file.Setxattr("user.a", []byte("x"), 0) },
		"Removexattr":    func() error { return file.Removexattr("user.a") },
		"Listxattr":      func() error { _, err := file.Listxattr(); return err },
		"DropCapability": func() error { return file.DropCapability() },
		"Append":         func() error { _, err := file.Append(ctx, []byte("x")); return err },
		"Hold":           func() error { _, err := file.Hold(); return err },
		"SetLock":        func() error { return file.SetLock(LockOwner{}, 1, Lock{Kind: unix.F_RDLCK}, false, nil) },
		"FindLock":       func() error { _, err := file.FindLock(LockOwner{}, Lock{Kind: unix.F_RDLCK}); return err },
	}
}

func TestALockedVolumeRefusesEveryCallUntilItIsUnlocked(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		b := newBench(t, mode)
		v := b.open()
		content := pattern(9000, 1)
		file := createFile(t, v.Root(), "file", content)
		link, _, err := v.Root().Symlink("link", "target", Owner{})
		if err != nil {
			t.Fatal(err)
		}
		unlinked := createFile(t, v.Root(), "unlinked", content)
		if err := v.Root().Unlink("unlinked"); err != nil {
			t.Fatal(err)
		}
		l, err := v.Root().List()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		if err := v.Lock(); err != nil {
			t.Errorf("Lock again: %v", err)
		}
		calls := b.kms.count("Decrypt")
		for name, call := range keyCalls(v.Root(), file, link, l) {
			if err := call(); !errors.Is(err, ErrLocked) {
				t.Errorf("%s: %s: %v, want %v", mode, name, err, ErrLocked)
			}
		}
		// What needs no key goes on.
		when := time.Unix(1e9, 0)
		if _, err := file.SetAttr(context.Background(), Change{Mtime: &when}); err != nil {
			t.Errorf("times that the kernel kept: %v", err)
		}
		if _, err := v.Root().Attr(); err != nil {
			t.Errorf("attributes of the root: %v", err)
		}
		if _, err := v.Statfs(); err != nil {
			t.Errorf("Statfs: %v", err)
		}
		file.Foresee() // which tells nobody what comes of it: no key is fetched, below
		s := v.Stats()
		if !errors.Is(s.Closed, ErrLocked) || s.CachedKeys != 0 || s.PooledKeys != 0 {
			t.Errorf("%s: %+v", mode, s)
		}
		if got := b.kms.count("Decrypt"); got != calls {
			t.Errorf("%s: a locked volume called Decrypt %d times", mode, got-calls)
		}

		if err := v.Unlock(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := b.kms.count("Decrypt"); got != calls+1 {
			t.Errorf("%s: unlocking called Decrypt %d times, want once", mode, got-calls)
		}
		for _, n := range []*Node{file, unlinked} {
			if !bytes.Equal(readAll(t, n), content) {
				t.Errorf("%s: %q reads otherwise", mode, n.Path())
			}
			writeAll(t, n, pattern(100, 7), 50)
			checkSeal(t, n)
		}
		if target, err := link.Readlink(); err != nil || target != "target" {
			t.Errorf("target %q, %v", target, err)
		}
		createFile(t, v.Root(), "later", content)
		if s := v.Stats(); s.Closed != nil {
			t.Errorf("%s: after Unlock %+v", mode, s)
		}
		b.close(v)
	}
}

// A method that is new must pass the gate as well.
func TestEveryMethodOfANodePassesTheGateOrNeedsNoKey(t *testing.T) {
	free := []string{"BackingPath", "DropHandle", "DropLocks", "Foresee", "Forget", "Generation", "HandOver", "Ino", "IsDir", "IsRegular", "IsSymlink", "Kind", "Listed", "NoteListed", "Path"}
	calls := keyCalls(nil, nil, nil, nil)
	methods := reflect.TypeFor[*Node]()
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		_, tried := calls[name]
		if name == "SetAttr" {
			_, tried = calls["SetAttr size"]
		}
		if !tried && !slices.Contains(free, name) {
			t.Errorf("nothing makes sure that %s is refused while the volume is locked", name)
		}
	}
}

func TestALockedVolumeClosesCleanly(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	content := pattern(5000, 1)
	createFile(t, v.Root(), "file", content)
	createFile(t, v.Root(), "gone", content)
	if err := v.Root().Unlink("gone"); err != nil {
		t.Fatal(err)
	}
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	b.close(v)
	if n := b.sidecars(); n != 1 {
		t.Errorf("%d sidecars are left, want that of the file", n)
	}
	v = b.open()
	if !bytes.Equal(readAll(t, lookup(t, v.Root(), "file")), content) {
		t.Error("the file reads otherwise")
	}
}

func TestUnlockFailsAsTheKMSDoesAndLeavesTheVolumeLocked(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	file := createFile(t, v.Root(), "file", pattern(10, 1))
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	b.kms.setFail(func(string) error { return kmsprovider.ErrKeyDisabled })
	if err := v.Unlock(context.Background()); !errors.Is(err, kmsprovider.ErrKeyDisabled) {
		t.Errorf("Unlock: %v", err)
	}
	if _, err := tryReadAll(file); !errors.Is(err, ErrLocked) {
		t.Errorf("read: %v, want %v", err, ErrLocked)
	}
	b.kms.setFail(nil)
	if err := v.Unlock(context.Background()); err != nil {
		t.Fatal(err)
	}
	readAll(t, file)
}

// Writers that race with Lock are refused, or what they wrote is there.
func TestALockLosesNothingThatWasAcknowledged(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	const writers = 8
	for round := range 5 {
		files := make([]*Node, writers)
		done := make([]int, writers)
		for i := range files {
			files[i] = createFile(t, v.Root(), fmt.Sprintf("file%d-%d", round, i), nil)
		}
		var wg sync.WaitGroup
		for i, n := range files {
			wg.Go(func() {
				for {
					if _, err := n.WriteAt(context.Background(), pattern(700, byte(done[i])), int64(done[i]*700)); err != nil {
						if !errors.Is(err, ErrLocked) {
							t.Errorf("write: %v", err)
						}
						return
					}
					done[i]++
				}
			})
		}
		time.Sleep(3 * time.Millisecond)
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if err := v.Unlock(context.Background()); err != nil {
			t.Fatal(err)
		}
		for i, n := range files {
			var want []byte
			for j := range done[i] {
				want = append(want, pattern(700, byte(j))...)
			}
			if !bytes.Equal(readAll(t, n), want) {
				t.Errorf("of %d writes that were acknowledged some are lost", done[i])
			}
			checkSeal(t, n)
		}
	}
}

func TestWhileTheKernelWritesBackOnlyWritesAreLetIn(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	content := pattern(4096, 1)
	n := createFile(t, v.Root(), "file", nil)
	k := &kernel{onDrop: func(*Node) {
		if _, err := n.WriteBack(context.Background(), content, 0); err != nil {
			t.Errorf("write back: %v", err)
		}
		if _, err := n.Attr(); !errors.Is(err, ErrLocked) {
			t.Errorf("Attr: %v, want %v", err, ErrLocked)
		}
	}}
	v.SetCache(k)
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	if len(k.dropped) != 1 {
		t.Errorf("the kernel was asked %d times to drop all, want once", len(k.dropped))
	}
	if err := v.Unlock(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(readAll(t, n), content) {
		t.Error("what was written back is not there")
	}
}

func TestLockWipesTheVolumeKeyAndWhatHangsOnIt(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "file", pattern(10, 1))
	data, volume, redo := cachedKeys(v, fileID(t, n)), v.vk, v.redo.key
	records := n.file.records
	if err := v.Lock(); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]*crypto.Key{"volume key": volume, "redo key": redo} {
		if !bytes.Equal(key.Bytes(), make([]byte, crypto.KeySize)) {
			t.Errorf("the %s is still there", name)
		}
	}
	if data.acquire() || !errors.Is(data.blocks.Open(make([]byte, 1), make([]byte, 41), 0), crypto.ErrWiped) {
		t.Error("the keys of a file are still there")
	}
	if _, err := records.NewSealer(v.random); !errors.Is(err, crypto.ErrWiped) {
		t.Errorf("the key of its record is still there: %v", err)
	}
}

func TestTheKMSVouchesForTheVolumeKeyOnceInItsTime(t *testing.T) {
	b := newBench(t, ModeVolume) // no calls for files
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		began := b.kms.count("Decrypt")
		pass(10 * testTTL)
		// It is asked for after 12 of 16 steps, so that there is time to ask again.
		if got := b.kms.count("Decrypt") - began; got < 10 || got > 14 {
			t.Errorf("in ten lives Decrypt was called %d times", got)
		}
		readAll(t, n)
	})
}

func TestARefusedVolumeKeyClosesTheVolumeUntilItIsGivenOutAgain(t *testing.T) {
	for _, cause := range []error{kmsprovider.ErrKeyDisabled, kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyNotFound} {
		b := newBench(t, ModeFile)
		b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
			content := pattern(5000, 1)
			n := createFile(t, v.Root(), "file", content)
			late := pattern(4096, 9)
			k.whenDropping(func(all *Node) {
				if all != nil {
					return
				}
				if _, err := n.WriteBack(context.Background(), late, 0); err != nil {
					t.Errorf("write back: %v", err)
				}
			})
			b.kms.setFail(func(string) error { return cause })
			pass(testTTL * 13 / expirySteps) // before the data key's time is over
			k.whenDropping(nil)
			if _, err := tryReadAll(n); !errors.Is(err, cause) {
				t.Fatalf("read: %v, want %v", err, cause)
			}
			if _, _, err := v.Root().Lookup("file"); !errors.Is(err, cause) {
				t.Errorf("lookup: %v, want %v", err, cause)
			}
			calls := b.kms.count("Decrypt")
			for range 100 {
				_, _ = tryReadAll(n)
			}
			if got := b.kms.count("Decrypt") - calls; got != 0 {
				t.Errorf("a hundred reads at once asked the KMS %d times", got)
			}
			b.kms.setFail(nil)
			pass(2 * time.Second)
			if got := readAll(t, n); !slices.Equal(got[:4096], late) || !slices.Equal(got[4096:], content[4096:]) {
				t.Error("it reads otherwise afterwards")
			}
			if v.Stats().Closed != nil {
				t.Errorf("closed: %v", v.Stats().Closed)
			}
		})
	}
}

func TestAKMSThatCannotBeReachedClosesTheVolumeOnlyAtTheEndOfTheKeysLife(t *testing.T) {
	b := newBench(t, ModeVolume)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		b.kms.setFail(func(string) error { return kmsprovider.ErrUnavailable })
		pass(testTTL * 14 / expirySteps)
		readAll(t, n)
		b.kms.setFail(nil)
		pass(testTTL / 4) // it came back in time
		readAll(t, n)

		b.kms.setFail(func(string) error { return kmsprovider.ErrUnavailable })
		pass(testTTL)
		if _, err := tryReadAll(n); !errors.Is(err, kmsprovider.ErrUnavailable) {
			t.Fatalf("read: %v, want %v", err, kmsprovider.ErrUnavailable)
		}
		if len(k.dropped) == 0 {
			t.Error("the kernel keeps what it has cached")
		}
		b.kms.setFail(nil)
		pass(2 * time.Second)
		readAll(t, n)
	})
}

func TestLockWinsOverARefusal(t *testing.T) {
	b := newBench(t, ModeFile)
	b.withTTL(func(t *testing.T, v *Volume, k *kernel) {
		n := createFile(t, v.Root(), "file", pattern(10, 1))
		b.kms.setFail(func(string) error { return kmsprovider.ErrKeyDisabled })
		pass(testTTL)
		if err := v.Lock(); err != nil {
			t.Fatal(err)
		}
		b.kms.setFail(nil)
		pass(testTTL)
		if _, err := tryReadAll(n); !errors.Is(err, ErrLocked) {
			t.Errorf("read: %v, want %v", err, ErrLocked)
		}
		if err := v.Unlock(context.Background()); err != nil {
			t.Fatal(err)
		}
		readAll(t, n)
		synctest.Wait()
	})
}
