package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// What a power cut may leave, and what a check while the volume is in use makes
// of it: what could be read while mismatches were accepted can be read after.
func TestAfterAPowerCutACheckKeepsEverythingReadable(t *testing.T) {
	for _, c := range damageCases {
		// A copy is refused as ever: no power cut makes one.
		if slices.Contains(c.found, "header") || slices.Contains(c.found, "duplicate") {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			_, at := b.furnished()
			c.do(t, b, at)
			b.powerCut(b.open())
			v := b.open()
			before := contents(t, v)
			settle(t, v)
			if got := differ(before, contents(t, v)); len(got) > 0 && !slices.Contains(c.found, "block") {
				t.Errorf("a check changed %q", got)
			}
			v = b.reopened(v)
			if v.relaxed {
				t.Error("still relaxed")
			}
			after := contents(t, v)
			for p, content := range before {
				if content != "error" && after[p] != content {
					t.Errorf("%q could be read after the power cut, and cannot once it is settled", p)
				}
			}
			b.close(v)
		})
	}
}

func TestACheckAfterAPowerCutThatDoesNotEndSettlesNothing(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	furnish(t, v.Root())
	b.powerCut(v)
	v = b.open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := v.Settle(ctx); !errors.Is(err, context.Canceled) || v.settled.Load() {
		t.Errorf("Settle: %v, settled %v", err, v.settled.Load())
	}
	// A file whose key is refused is not settled either.
	b.kms.setFail(func(string) error { return kmsprovider.ErrAccessDenied })
	if r, err := v.Settle(context.Background()); err != nil || r.Complete || v.settled.Load() {
		t.Errorf("Settle: %v, complete %v, settled %v", err, r.Complete, v.settled.Load())
	}
	b.kms.setFail(nil)
	if v = b.reopened(v); !v.relaxed {
		t.Error("it is called settled")
	}
	v.SettleInBackground()
	waitFor(t, func() bool { return !v.Stats().Unsettled })
	if v = b.reopened(v); v.relaxed {
		t.Error("the check in the background settled nothing")
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !what(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing happens for a minute")
		}
	}
}

// Programs write, rename, create and remove while the check goes on.
func TestACheckAfterAPowerCutGoesOnBesidePrograms(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	root := v.Root()
	const files = 40
	var paths []string
	for i := range files {
		dir, _, err := root.Mkdir(fmt.Sprint("dir", i), 0o755, Owner{})
		ok(t, err)
		paths = append(paths, b.backingFile(createFile(t, dir, "file", pattern(40*crypto.BlockSize, byte(i)))))
	}
	b.powerCut(v)
	for i, p := range paths {
		switch i % 3 {
		case 0:
			truncate(t, p, crypto.BlockOffset(35)+7)
		case 1:
			overwrite(t, p, crypto.BlockOffset(20), make([]byte, crypto.CipherBlockSize))
		}
	}
	v = b.open()
	root = v.Root()
	var group sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		group.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-stop:
					return
				default:
				}
				i := (worker + 4*round) % files
				dir := lookup(t, root, fmt.Sprint("dir", i))
				n := lookup(t, dir, "file")
				writeAll(t, n, pattern(5000, byte(round)), int64(round%9)*5000)
				if err := dir.Rename("file", dir, "moved", 0); err != nil {
					t.Errorf("rename: %v", err)
				}
				if err := dir.Rename("moved", lookup(t, root, fmt.Sprint("dir", i)), "file", 0); err != nil {
					t.Errorf("rename back: %v", err)
				}
				createFile(t, dir, fmt.Sprint("new", round), pattern(100, 1))
				if err := dir.Unlink(fmt.Sprint("new", round)); err != nil {
					t.Errorf("unlink: %v", err)
				}
			}
		})
	}
	r, err := v.Settle(context.Background())
	close(stop)
	group.Wait()
	if err != nil || !v.settled.Load() {
		t.Fatalf("Settle: %v, settled %v:%s", err, v.settled.Load(), show(r))
	}
	b.close(v)
	if r := b.mustFsck(FsckOptions{}); r.Errors > 0 {
		t.Errorf("a check afterwards finds:%s", show(r))
	}
}

// What is renamed from where the check has not been to where it has is looked at
// all the same.
func TestACheckAfterAPowerCutFollowsWhatIsRenamed(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	for _, name := range []string{"a", "b", "c"} {
		dir, _, err := v.Root().Mkdir(name, 0o755, Owner{})
		ok(t, err)
		createFile(t, dir, "file", pattern(40*crypto.BlockSize, 1))
	}
	paths := []string{b.backingFile(lookup(t, lookup(t, v.Root(), "a"), "file")),
		b.backingFile(lookup(t, lookup(t, v.Root(), "b"), "file")), b.backingFile(lookup(t, lookup(t, v.Root(), "c"), "file"))}
	b.powerCut(v)
	for _, p := range paths {
		truncate(t, p, crypto.BlockOffset(30))
	}
	// Once the check has listed the root, its directories swap their places with
	// new ones below a directory that is made meanwhile, and is on no list.
	var listings atomic.Int32
	var root *Node
	v = b.open(func(o *Options) {
		o.Backing = &tap{Backing: System{}, through: func(c call, do func(int) error) error {
			// Two calls list a directory: four directories are listed to count, then the root.
			if c.op == "getdents" && root != nil && listings.Add(1) == 2*4+2+1 {
				dir, _, err := root.Mkdir("new", 0o755, Owner{})
				ok(t, err)
				for _, name := range []string{"a", "b", "c"} {
					ok(t, root.Rename(name, dir, name, 0))
				}
			}
			return do(c.bytes)
		}}
	})
	root = v.Root()
	settle(t, v)
	for _, name := range []string{"a", "b", "c"} {
		checkSeal(t, lookup(t, lookup(t, lookup(t, root, "new"), name), "file"))
	}
}

func TestAFullCheckOfAVolumeAfterAPowerCutSettlesIt(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	want := pattern(40*crypto.BlockSize, 1)
	path := b.backingFile(createFile(t, v.Root(), "file", want))
	b.powerCut(v)
	overwrite(t, path, crypto.BlockOffset(20), make([]byte, crypto.CipherBlockSize))
	if r := b.mustFsck(FsckOptions{}); r.Remaining != 1 || r.Findings[0].Kind != FindingErased {
		t.Errorf("found:%s", show(r))
	}
	if r := b.mustFsck(FsckOptions{Repair: true, Paths: []string{"file"}}); r.Remaining != 0 || r.Errors != 1 {
		t.Errorf("repaired:%s", show(r))
	}
	if v = b.open(); !v.relaxed {
		t.Error("a check of one path settled all")
	}
	b.close(v)
	if r := b.mustFsck(FsckOptions{Repair: true}); len(r.Findings) != 0 {
		t.Errorf("found:%s", show(r))
	}
	v = b.open()
	if v.relaxed {
		t.Error("still relaxed")
	}
	clear(want[20*crypto.BlockSize : 21*crypto.BlockSize])
	if got := readAll(t, lookup(t, v.Root(), "file")); !bytes.Equal(got, want) {
		t.Error("the file differs")
	}
}

// A name that does not decrypt does not make unreadable what has other names.
func TestAfterAPowerCutANameThatDoesNotDecryptHarmsNoOtherName(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	want := pattern(9000, 1)
	path := b.backingFile(createFile(t, v.Root(), "file", want))
	b.powerCut(v)
	ok(t, os.Link(path, path+" (copy)"))
	v = b.open()
	for _, when := range []string{"before", "after"} {
		var broken *Node
		for _, name := range list(t, v.Root()) {
			if n := lookup(t, v.Root(), name); name != "file" {
				broken = n
			}
		}
		if broken == nil {
			t.Fatal("the copy is not listed")
		}
		_, err := tryReadAll(broken)
		wantIntegrity(t, err)
		n := lookup(t, v.Root(), "file")
		n.Forget()
		if got := readAll(t, n); !bytes.Equal(got, want) {
			t.Errorf("%s the check, the file differs", when)
		}
		if when == "before" {
			n.Forget()
			if r := settle(t, v); !slices.Equal(kinds(r), []string{"name"}) {
				t.Errorf("found:%s", show(r))
			}
		}
	}
	// From then on planted links are refused, as ever.
	_, _, err := v.Root().Create("other", 0o644, Owner{})
	ok(t, err)
	other := b.backingFile(lookup(t, v.Root(), "other"))
	ok(t, os.Remove(other))
	ok(t, os.Link(path, other))
	_, err = tryReadAll(lookup(t, v.Root(), "other"))
	wantIntegrity(t, err)
}

// A power cut in the middle of a rename may leave both names. What nobody can read by
// either, for want of a sidecar that was never synced, keeps nothing from being settled.
func TestAfterAPowerCutAFileOfTwoNamesWithoutAKeyIsSettled(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	var paths []string
	for i := range 20 { // which of two is listed first is a matter of chance
		paths = append(paths, b.backingFile(createFile(t, v.Root(), fmt.Sprint("file", i), pattern(9000, 1))))
	}
	b.powerCut(v)
	for i := 0; i < len(paths); i += 2 {
		ok(t, os.Remove(filepath.Join(b.dir, sidecarPath(b.id(t, paths[i])))))
		ok(t, os.Remove(paths[i+1]))
		ok(t, os.Link(paths[i], paths[i+1]))
		truncate(t, paths[i], crypto.BlockOffset(1)+100)
	}
	v = b.open()
	if r := settle(t, v); !slices.Equal(kinds(r), []string{"binding", "sidecar"}) {
		t.Errorf("found:%s", show(r))
	}
}
