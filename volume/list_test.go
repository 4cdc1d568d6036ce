package volume

import (
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// aDirectory makes one with n entries, which are cheaper than files.
func aDirectory(t *testing.T, v *Volume, n int) *Node {
	t.Helper()
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, _, err := dir.Mknod(fmt.Sprintf("an ordinary name %03d", i), unix.S_IFIFO|0o644, 0, 0, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAListingAllocatesTheNamesAlone(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget; a run without it checks this")
	}
	const entries = 300
	dir := aDirectory(t, newBench(t, ModeVolume).open(), entries)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties pools
	l, err := dir.List()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	allocs := testing.AllocsPerRun(20, func() {
		if err := l.Seek(0); err != nil {
			t.Fatal(err)
		}
		for err = nil; err == nil; {
			_, err = l.Next()
		}
		if err != io.EOF {
			t.Fatal(err)
		}
	})
	// The record is one string more, . and .. two; each time the buffer is filled takes a few.
	if allocs > entries+20 {
		t.Errorf("a listing of %d entries allocates %v times", entries, allocs)
	}
}

func TestALookupThatAListingExpectsEncryptsNoName(t *testing.T) {
	v := newBench(t, ModeVolume).open()
	dir := aDirectory(t, v, 3)
	long := strings.Repeat("long ", 50)
	if _, _, err := dir.Symlink(long, "target", Owner{}); err != nil {
		t.Fatal(err)
	}
	l, err := dir.List()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	seen := 0
	for {
		e, err := l.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Name == "." || e.Name == ".." {
			continue
		}
		seen++
		v.encoded.Store(nil)
		want, err := dir.encode(e.Name)
		if err != nil {
			t.Fatal(err)
		}
		v.encoded.Store(nil)
		l.Expect(e)
		kept := v.encoded.Load()
		if e.Name == long {
			if kept != nil {
				t.Errorf("of a long name %+v is kept", kept)
			}
		} else if kept == nil || kept.entryName != want {
			t.Fatalf("%q: kept is %+v, want %+v", e.Name, kept, want)
		}
		if n, a, err := dir.Lookup(e.Name); err != nil || n.Ino() != e.Ino || a.Ino != e.Ino {
			t.Errorf("%q is looked up as %v, %v", e.Name, a.Ino, err)
		}
	}
	if seen != 4 {
		t.Errorf("%d entries, want 4", seen)
	}
	// Nothing is expected of a place that was only gone to.
	seek := func() {
		if err := l.Seek(0); err != nil {
			t.Fatal(err)
		}
	}
	for seek(); l.last == nil; {
		if _, err := l.Next(); err != nil {
			t.Fatal(err)
		}
	}
	seek()
	v.encoded.Store(nil)
	if l.Expect(Entry{Name: "x"}); v.encoded.Load() != nil {
		t.Error("something is expected after a seek")
	}
}
