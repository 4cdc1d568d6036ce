package volume

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// hasSidecar tells whether a file's wrapped key is there.
func (b *bench) hasSidecar(id crypto.ID) bool {
	_, err := os.Stat(filepath.Join(b.dir, sidecarPath(id)))
	return err == nil
}

// copyOf puts a copy of a backing file beside it, as a sync tool does.
func copyOf(t *testing.T, from, to string) {
	t.Helper()
	if err := os.WriteFile(to, readPath(t, from), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASidecarGoesOnlyOnceTheRemovalOfTheNameIsDurable(t *testing.T) {
	b := newBench(t, ModeFile)
	var calls []string
	k := &tap{Backing: System{}}
	var id crypto.ID
	broken := false
	k.through = func(c call, do func(int) error) error {
		if c.op == "syncfs" {
			calls = append(calls, c.op)
			if broken {
				return unix.EIO
			}
		}
		if c.op == "unlinkat" {
			if c.name == id.String() {
				calls = append(calls, "sidecar")
			} else if _, err := crypto.ParseID(c.name); err != nil {
				calls = append(calls, "name")
			}
		}
		return do(c.bytes)
	}
	v := b.open(withTap(k))
	n := createFile(t, v.Root(), "file", []byte("content"))
	id = fileID(t, n)
	quietPool(v)
	if err := v.Root().Unlink("file"); err != nil {
		t.Fatal(err)
	}
	v.reaper.flush()
	if !b.hasSidecar(id) {
		t.Fatal("it went while the file was in use")
	}
	n.Forget()
	v.reaper.flush()
	if want := []string{"name", "syncfs", "sidecar"}; !slices.Equal(calls, want) || b.hasSidecar(id) {
		t.Errorf("%q, want %q", calls, want)
	}
	// Where nothing can be made durable, it stays.
	n = createFile(t, v.Root(), "file", []byte("content"))
	id, broken = fileID(t, n), true
	if err := v.Root().Unlink("file"); err != nil {
		t.Fatal(err)
	}
	n.Forget()
	v.reaper.flush()
	broken = false
	if !b.hasSidecar(id) {
		t.Error("it went though the removal of the name may be undone")
	}
}

func TestRemovingAFileKeepsTheKeyOfItsConflictCopy(t *testing.T) {
	for _, name := range []string{"file", longOne} {
		b := newBench(t, ModeFile)
		v := b.open()
		n := createFile(t, v.Root(), name, []byte("one version"))
		id, path := fileID(t, n), b.backingFile(n)
		copyOf(t, path, path+" (conflicted copy)")
		if err := v.Root().Unlink(name); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		b.close(v)
		if !b.hasSidecar(id) {
			t.Fatal("the conflict copy lost its key")
		}
		// It is the same file still, once it has its name again.
		if err := os.Rename(path+" (conflicted copy)", path); err != nil {
			t.Fatal(err)
		}
		v = b.open()
		if isLongName(filepath.Base(path)) {
			e, err := v.Root().encode(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.root.storeLongName(v.rootDesc.fd, e); err != nil {
				t.Fatal(err)
			}
		}
		n = lookup(t, v.Root(), name)
		if got := readAll(t, n); string(got) != "one version" {
			t.Errorf("read %q", got)
		}
		if err := v.Root().Unlink(name); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		b.close(v)
		if b.hasSidecar(id) {
			t.Error("the sidecar stays though there is no copy any more")
		}
	}
}

func TestRemovingAConflictCopyKeepsTheKeyOfTheFile(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "file", []byte("content"))
	other := createFile(t, v.Root(), "other", []byte("x"))
	id, path, taken := fileID(t, n), b.backingFile(n), b.backingFile(other)
	b.close(v)
	copyOf(t, path, path+".sync-conflict")
	copyOf(t, path, taken) // under a name that is another file's
	v = b.open()
	for _, name := range []string{brokenName(filepath.Base(path) + ".sync-conflict"), "other"} {
		n := lookup(t, v.Root(), name)
		if err := v.Root().Unlink(name); err != nil {
			t.Fatal(err)
		}
		n.Forget()
	}
	v = b.reopened(v)
	if got := readAll(t, lookup(t, v.Root(), "file")); string(got) != "content" || !b.hasSidecar(id) {
		t.Errorf("read %q", got)
	}
}

func TestRemovingOneHalfOfASplitHardLinkKeepsTheKeyOfTheOther(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "one", []byte("content"))
	if _, err := v.Root().Link(n, "two"); err != nil {
		t.Fatal(err)
	}
	one := b.backingFile(n)
	e, err := v.Root().encode("two")
	if err != nil {
		t.Fatal(err)
	}
	two := filepath.Join(b.dir, e.backing)
	if one == two {
		e, _ = v.Root().encode("one")
		one = filepath.Join(b.dir, e.backing)
	}
	b.close(v)
	// A sync tool that knows no hard links brings back two files.
	content := readPath(t, two)
	if err := os.Remove(two); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two, content, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"one", "two"} {
		v = b.open()
		for _, name := range []string{"one", "two"} {
			if got := readAll(t, lookup(t, v.Root(), name)); string(got) != "content" {
				t.Errorf("%s reads %q", name, got)
			}
		}
		n := lookup(t, v.Root(), gone)
		if a := must(n.Attr())(t); a.Nlink != 1 {
			t.Fatalf("%s has %d names", gone, a.Nlink)
		}
		if err := v.Root().Unlink(gone); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		v = b.reopened(v)
		kept := map[string]string{"one": "two", "two": "one"}[gone]
		if got := readAll(t, lookup(t, v.Root(), kept)); string(got) != "content" {
			t.Errorf("%s reads %q", kept, got)
		}
		b.close(v)
		copyOf(t, map[string]string{"one": two, "two": one}[gone], map[string]string{"one": one, "two": two}[gone])
	}
}

func TestAKillBetweenRemovalAndReapingLeavesTheSidecarAlone(t *testing.T) {
	b := newBench(t, ModeFile)
	kill := &killer{b: b}
	k := &tap{Backing: System{}, through: idle}
	v := b.open(withTap(k))
	n := createFile(t, v.Root(), "file", []byte("content"))
	kept := createFile(t, v.Root(), "kept", []byte("kept"))
	id, keptID := fileID(t, n), fileID(t, kept)
	quietPool(v)
	if err := v.Root().Unlink("file"); err != nil {
		t.Fatal(err)
	}
	n.Forget()
	kill.death = death{1, beforeChange} // the next change is the sidecar's removal
	k.turn(kill.through)
	v.reaper.flush()
	if !kill.died {
		t.Fatal("nothing was removed")
	}
	kill.bury(t, v)
	v = b.open()
	if !b.hasSidecar(id) || !b.hasSidecar(keptID) {
		t.Error("a sidecar is gone")
	}
	if got := readAll(t, lookup(t, v.Root(), "kept")); string(got) != "kept" {
		t.Errorf("read %q", got)
	}
}
