package volume

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// sidecarOf is the path of the sidecar of a file of the open volume.
func (b *bench) sidecarOf(v *Volume, name string) string {
	f := must(lookup(b.t, v.Root(), name).openFile(false))(b.t)
	defer f.release()
	return filepath.Join(b.dir, sidecarPath(f.id))
}

func TestADamagedSidecarIsNamedAndKeepsTheOldKey(t *testing.T) {
	const n = 15
	b := filledBench(t, ModeFile, n)
	v := b.open()
	damaged, removed := b.sidecarOf(v, fileName(3)), b.sidecarOf(v, fileName(4))
	b.close(v)
	good, short := readFile(t, damaged), readFile(t, removed)
	flipByte(t, damaged, int64(len(good)-40)) // the wrapped key
	writeFile(t, removed, short[:50])
	r, err := b.rewrap(uriA, uriB)
	if !errors.Is(err, ErrIntegrity) || r.Complete {
		t.Fatalf("%v, %+v", err, r)
	}
	var names []string
	for _, d := range r.Damaged {
		names = append(names, filepath.Join(b.dir, d.Name))
	}
	want := []string{damaged, removed}
	slices.Sort(want)
	if !slices.Equal(names, want) || r.Proven != n-2 || r.Sidecars != n {
		t.Errorf("damaged %v, proven %d of %d", names, r.Proven, r.Sidecars)
	}
	if got := b.states(); !slices.Equal(got, []string{keyA + ": retiring", keyB + ": active"}) {
		t.Errorf("keys %v", got)
	}
	// Put back from a backup, they are rewrapped by the next run, and A goes.
	writeFile(t, damaged, good)
	writeFile(t, removed, short)
	if r := b.mustRewrap(kmsprovider.KeyURI{}, kmsprovider.KeyURI{}); r.Rewritten != 2 || !slices.Equal(r.Removed, []string{keyA}) {
		t.Errorf("%+v", r)
	}
	b.checkSidecars(n, keyB)
	b.checkFilled(n)
}

func TestAnEntryThatOnlyNamesTheNewKeyIsNotTakenForIt(t *testing.T) {
	const n = 5
	b := filledBench(t, ModeFile, n)
	v := b.open()
	path := b.sidecarOf(v, fileName(2))
	other := must(crypto.ParseSidecar(readFile(t, b.sidecarOf(v, fileName(1)))))(t)
	sc := must(crypto.ParseSidecar(readFile(t, path)))(t)
	b.close(v)
	// Well wrapped, in its context, and another key.
	forged := must(b.kms.Encrypt(context.Background(), keyB, bytes.Repeat([]byte{1}, 32), dataKeyContext(sc.Volume, sc.File)))(t)
	sc.Keys = append(sc.Keys, crypto.WrappedKey{Provider: "local", KeyID: keyB, Wrapped: forged})
	writeFile(t, path, must(sc.Marshal())(t))
	// Another file's.
	b.mustRewrap(uriA, uriB)
	b.checkSidecars(n, keyB)
	b.checkFilled(n)
	sc.Keys = other.Keys
	writeFile(t, path, must(sc.Marshal())(t))
	if r, err := b.rewrap(kmsprovider.KeyURI{}, kmsprovider.KeyURI{}); !errors.Is(err, ErrIntegrity) || len(r.Damaged) != 1 {
		t.Errorf("another file's entry passed: %v, %+v", err, r)
	}
}

func TestTheProofFindsASidecarThatWasNotRewrapped(t *testing.T) {
	const n = 30
	b := filledBench(t, ModeFile, n)
	v := b.open()
	path := b.sidecarOf(v, fileName(7))
	b.close(v)
	old := readFile(t, path)
	planted := false
	r := b.mustRewrap(uriA, uriB, func(o *RewrapOptions) {
		o.Progress = func(done, total int) {
			if done == total && !planted { // all were done, and one is put back
				planted = true
				writeFile(t, path, old)
			}
		}
	})
	if !planted || r.Rewritten != n+1 || r.Passes != 3 {
		t.Errorf("%+v", r)
	}
	b.checkSidecars(n, keyB)
	// Once A is given up, nothing can be done about it but to say so.
	writeFile(t, path, old)
	r, err := b.rewrap(kmsprovider.KeyURI{}, kmsprovider.KeyURI{})
	if !errors.Is(err, ErrIntegrity) || len(r.Damaged) != 1 || filepath.Join(b.dir, r.Damaged[0].Name) != path || r.Proven != n-1 || r.Complete {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestAKMSThatFailsHalfWayStopsARewrapThatThenGoesOn(t *testing.T) {
	const n = 40
	for _, cause := range []error{kmsprovider.ErrUnavailable, kmsprovider.ErrThrottled, kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled} {
		b := filledBench(t, ModeFile, n)
		var mu sync.Mutex
		calls := 0
		b.kms.setFail(func(op string) error {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls > n {
				return cause
			}
			return nil
		})
		r, err := b.rewrap(uriA, uriB)
		if !errors.Is(err, cause) || r.Complete || r.Rewritten == 0 || r.Rewritten == n {
			t.Fatalf("%v, %+v", err, r)
		}
		b.kms.setFail(nil)
		b.checkFilled(n) // half under the old key, half under the new one
		again := b.mustRewrap(uriA, uriB)
		if r.Rewritten+again.Rewritten != n {
			t.Errorf("%d and %d sidecars rewritten, want %d in all", r.Rewritten, again.Rewritten, n)
		}
		b.checkSidecars(n, keyB)
	}
}

func TestAFullDiskStopsARewrapThatThenGoesOn(t *testing.T) {
	const n = 30
	b := filledBench(t, ModeFile, n)
	k := newFaulty()
	var mu sync.Mutex
	writes := 0
	k.pwrite = func([]byte, int64) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if writes++; writes > n/2 {
			return 0, unix.ENOSPC
		}
		return 0, nil
	}
	r, err := b.rewrap(uriA, uriB, func(o *RewrapOptions) { o.Backing = k })
	if !errors.Is(err, unix.ENOSPC) || r.Rewritten == 0 || r.Complete {
		t.Fatalf("%v, %+v", err, r)
	}
	if got := len(hashTree(t, b.dir, sidecarFiles)); got != n {
		t.Errorf("%d files among %d sidecars", got, n)
	}
	b.checkFilled(n)
	b.mustRewrap(uriA, uriB)
	b.checkSidecars(n, keyB)
}

// shelfStore removes a sidecar just before it is replaced, and can be a store
// that does not know how to exchange two names.
type shelfStore struct {
	System
	noExchange bool
	path       string // of the sidecar
	removed    atomic.Bool
}

func (k *shelfStore) Renameat2(olddir int, oldname string, newdir int, newname string, flags uint) error {
	if newname == filepath.Base(k.path) && k.removed.CompareAndSwap(false, true) {
		if err := os.Remove(k.path); err != nil {
			return err
		}
	}
	if k.noExchange && flags == unix.RENAME_EXCHANGE {
		return unix.EINVAL
	}
	return k.System.Renameat2(olddir, oldname, newdir, newname, flags)
}

func TestASidecarThatItsMountRemovesMeanwhileStaysGone(t *testing.T) {
	const n = 6
	for _, noExchange := range []bool{false, true} {
		b := filledBench(t, ModeFile, n)
		v := b.open()
		k := &shelfStore{noExchange: noExchange, path: b.sidecarOf(v, fileName(2))}
		gone := k.path
		b.close(v)
		r := b.mustRewrap(uriA, uriB, func(o *RewrapOptions) { o.Backing = k })
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) || r.Sidecars != n-1 || r.Rewritten != n-1 {
			t.Errorf("without exchange %v: %v, %+v", noExchange, err, r)
		}
		b.checkSidecars(n-1, keyB)
	}
}

func TestKeysThatWereGivenUpCannotBePutBackForNewFiles(t *testing.T) {
	const n = 4
	b := filledBench(t, ModeFile, n)
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.mustRewrap(uriA, uriB)
	whole := b.dir
	b.dir = copied // all of it as it was, keys and sidecars
	if _, err := b.tryOpen(); !errors.Is(err, ErrOlder) {
		t.Errorf("opened for writing: %v", err)
	}
	if _, err := b.rewrap(kmsprovider.KeyURI{}, kmsprovider.KeyURI{}); !errors.Is(err, ErrOlder) {
		t.Errorf("rewrapped: %v", err)
	}
	v := b.open(func(o *Options) { o.ReadOnly = true })
	if got := readAll(t, lookup(t, v.Root(), fileName(3))); !bytes.Equal(got, pattern(3, 3)) {
		t.Error("the copy reads otherwise")
	}
	b.close(v)
	if !strings.Contains(b.log.String(), "older than one that this host has seen") {
		t.Errorf("log: %q", b.log)
	}
	b.dir = whole
	b.checkFilled(n)
}
