package volume

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// copiedBeforeItself is a copy of a directory to a place that comes first by path, so
// that nothing but what a repair has begun tells that it is the copy.
var copiedBeforeItself = damageCase{
	changed: below("big", longName, longName+"/"+longName, longName+"/deep", "attributes", "fifo", "other name", "read only"),
	do: func(t *testing.T, b *bench, at func(string) string) {
		ok(t, os.Remove(at("big")))
		copyTree(t, at("dir"), at("big"))
	},
}

// blindRepair repairs while the call number at fails, and tells which calls it made.
func (b *bench) blindRepair(at int) (*FsckReport, []call) {
	b.t.Helper()
	blind := &blindness{at: at, err: unix.EIO}
	r, err := b.fsck(FsckOptions{Repair: true, Jobs: 1}, withTap(&tap{Backing: System{}, through: blind.through}))
	ok(b.t, err)
	return r, blind.calls
}

// A directory that is a copy waits for the copies in it, and a repair that begun
// goes on, whichever read of it failed.
func TestACopyWaitsForTheCopiesInIt(t *testing.T) {
	c := copiedBeforeItself
	b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
	b.store = &tap{Backing: System{}, through: idle}
	intact, at := b.furnished()
	c.do(t, b, at)
	b.close(b.open())
	readable, saved := b.seenContents(), b.save()
	settled := func() {
		t.Helper()
		b.mustFsck(FsckOptions{Repair: true})
		c.wantSettled(t, b.mustFsck(FsckOptions{Repair: true}))
		c.wantNothingLost(t, b, intact, readable)
	}

	var begun, waited int
	_, calls := b.blindRepair(0)
	for n, made := range calls {
		if made.op != "openat" || !strings.HasPrefix(made.name, "L.") || n < len(calls)/2 {
			continue
		}
		b.load(saved)
		r, _ := b.blindRepair(n + 1)
		wantKept(t, readable, b.seenContents())
		for _, f := range r.Findings {
			if f.Path == "big" && strings.Contains(f.Note, errHeld.Error()) {
				waited++
			}
		}
		if beside := b.besides(t); beside != "" {
			begun++
			half := b.save()
			_, calls := b.blindRepair(0)
			for n, made := range calls {
				if made.op == "statx" && made.name == beside {
					b.load(half)
					b.blindRepair(n + 1)
					settled()
				}
			}
			b.load(half)
		}
		if settled(); t.Failed() {
			t.Fatalf("call %d, %+v", n+1, made)
		}
	}
	if waited == 0 || begun == 0 {
		t.Errorf("it waited %d times, and was begun %d times", waited, begun)
	}
}

// besides is the backing name of the directory in the root in which the entries of a
// copy are gathered.
func (b *bench) besides(t *testing.T) string {
	t.Helper()
	v := b.open(func(o *Options) { o.ReadOnly = true })
	defer b.close(v)
	for _, name := range list(t, v.Root()) {
		if strings.Contains(name, ".copy-") {
			return filepath.Base(b.backingFile(lookup(t, v.Root(), name)))
		}
	}
	return ""
}

// What a read error keeps from a name cannot go to another directory: the copy around
// it is not begun, and nothing is set aside.
func TestACopyWaitsForWhatIsToBeNamedInIt(t *testing.T) {
	b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
	b.store = &tap{Backing: System{}, through: idle}
	intact, at := b.furnished()
	copiedBeforeItself.do(t, b, at)
	nameless := filepath.Base(at("dir/read only")) + "A"
	ok(t, os.Rename(filepath.Join(at("big"), filepath.Base(at("dir/read only"))), filepath.Join(at("big"), nameless)))
	b.close(b.open())
	saved := b.save()
	wantNamed := func() {
		t.Helper()
		if lost, _ := filepath.Glob(filepath.Join(b.dir, metaDir, lostFoundDir, "*", "*", nameless)); len(lost) != 0 {
			t.Errorf("it is in %q", lost)
		}
	}

	named, waited := 0, 0 // the reads until it is named
	for before := -1; before < 10; before++ {
		b.load(saved)
		var mu sync.Mutex
		asked, at := 0, named-before // which fails; at first none
		through := func(c call, do func(int) error) error {
			mu.Lock()
			if isReading(c) {
				asked++
			} else if c.name == nameless && named == 0 {
				named = asked
			}
			fails := isReading(c) && before >= 0 && asked == at
			mu.Unlock()
			if fails {
				return unix.EIO
			}
			return idle(c, do)
		}
		r, err := b.fsck(FsckOptions{Repair: true, Jobs: 1}, withTap(&tap{Backing: System{}, through: through}))
		ok(t, err)
		wantNamed()
		for _, f := range r.Findings {
			if f.Kind == FindingName && !f.Repaired {
				waited++
				if beside := b.besides(t); beside != "" {
					t.Errorf("%d before: it is begun in %q:%s", before, beside, show(r))
				}
			}
		}
		b.mustFsck(FsckOptions{Repair: true})
		if again := b.mustFsck(FsckOptions{Repair: true}); len(again.Findings) != 0 {
			t.Errorf("the next repair finds:%s", show(again))
		}
		got := 0
		for p, content := range b.seenContents() {
			if strings.HasPrefix(p, "big/") && content == intact["dir/read only"] {
				got++
			}
		}
		if wantNamed(); got != 1 || t.Failed() {
			t.Fatalf("%d before: it is there %d times; the repair:%s", before, got, show(r))
		}
	}
	if waited == 0 {
		t.Error("no read error kept it from its name")
	}
}
