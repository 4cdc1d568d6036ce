package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kmsfs/crypto"
)

func TestADamagedDirectoryRecordAffectsThatDirectoryAlone(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, record, other string){
		"missing":           func(t *testing.T, p, _ string) { remove(t, p) },
		"emptied":           func(t *testing.T, p, _ string) { truncate(t, p, 0) },
		"changed":           func(t *testing.T, p, _ string) { flipByte(t, p, 30) },
		"extended":          func(t *testing.T, p, _ string) { truncate(t, p, int64(crypto.DirRecordSize)+1) },
		"another's":         func(t *testing.T, p, other string) { replace(t, p, other) },
		"a symlink":         func(t *testing.T, p, other string) { remove(t, p); _ = os.Symlink(other, p) },
		"larger than a GiB": func(t *testing.T, p, _ string) { truncate(t, p, 1<<30) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			v := b.open()
			good, _, err := v.Root().Mkdir("good", 0o755, Owner{})
			if err != nil {
				t.Fatal(err)
			}
			bad, _, err := v.Root().Mkdir("bad", 0o755, Owner{})
			if err != nil {
				t.Fatal(err)
			}
			createFile(t, good, "file", []byte("content"))
			createFile(t, bad, "file", []byte("content"))
			sub, _, err := bad.Mkdir("sub", 0o755, Owner{})
			if err != nil {
				t.Fatal(err)
			}
			createFile(t, sub, "deep", nil)
			badRecord := filepath.Join(b.backingFile(bad), recordName)
			goodRecord := filepath.Join(b.backingFile(good), recordName)
			b.close(v)
			damage(t, badRecord, goodRecord)

			v = b.open()
			bad = lookup(t, v.Root(), "bad")
			_, _, err = bad.Lookup("file")
			wantIntegrity(t, err, `"bad"`)
			_, _, err = bad.Create("new", 0o644, Owner{})
			wantIntegrity(t, err)
			if got := readAll(t, lookup(t, lookup(t, v.Root(), "good"), "file")); string(got) != "content" {
				t.Errorf("the good directory's file reads %q", got)
			}
			// Its entries are listed, as broken, and it can be removed with them.
			removeTree(t, v.Root(), "bad")
			if names := list(t, v.Root()); !slices.Equal(names, []string{"good"}) {
				t.Errorf("left are %q", names)
			}
		})
	}
}

// removeTree does what rm -r does.
func removeTree(t *testing.T, parent *Node, name string) {
	t.Helper()
	n := lookup(t, parent, name)
	if !n.IsDir() {
		if err := parent.Unlink(name); err != nil {
			t.Fatalf("unlink %q: %v", name, err)
		}
		return
	}
	for _, child := range list(t, n) {
		removeTree(t, n, child)
	}
	if err := parent.Rmdir(name); err != nil {
		t.Fatalf("rmdir %q: %v", name, err)
	}
}

func TestWhatSomebodyElsePutIntoTheBackingDirectoryIsListedAsBrokenAndCanBeRemoved(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	createFile(t, v.Root(), "mine", []byte("content"))
	b.close(v)
	plain := filepath.Join(b.dir, "plain.txt")
	if err := os.WriteFile(plain, []byte("plaintext by hand"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "plain dir", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "plain dir", "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(b.dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "L.AAAA"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	v = b.open()
	want := []string{"mine", brokenName("plain.txt"), brokenName("plain dir"), brokenName("link"), brokenName("L.AAAA")}
	got := list(t, v.Root())
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("listed %q, want %q", got, want)
	}
	n := lookup(t, v.Root(), brokenName("plain.txt"))
	if _, err := n.ReadAt(context.Background(), make([]byte, 10), 0); !errors.Is(err, ErrIntegrity) {
		t.Errorf("read: %v, want an integrity error", err)
	}
	if err := n.Truncate(context.Background(), 0); !errors.Is(err, ErrIntegrity) {
		t.Errorf("truncate: %v, want an integrity error", err)
	}
	if _, err := n.WriteAt(context.Background(), []byte("x"), 0); !errors.Is(err, ErrIntegrity) {
		t.Errorf("write: %v, want an integrity error", err)
	}
	if err := v.Root().Rename(brokenName("plain.txt"), v.Root(), "adopted", 0); err == nil {
		t.Error("a foreign file was given a name in the volume")
	}
	if err := v.Root().Rename("mine", v.Root(), brokenName("plain.txt"), 0); err == nil {
		t.Error("a foreign file was replaced")
	}
	if string(readPath(t, plain)) != "plaintext by hand" {
		t.Error("the foreign file was written over")
	}
	if _, err := lookup(t, v.Root(), brokenName("link")).Readlink(); !errors.Is(err, ErrIntegrity) {
		t.Errorf("readlink: %v, want an integrity error", err)
	}
	for _, name := range got {
		if name != "mine" {
			removeTree(t, v.Root(), name)
		}
	}
	if got := list(t, v.Root()); !slices.Equal(got, []string{"mine"}) {
		t.Errorf("left are %q", got)
	}
}

func TestNoSymlinkInTheBackingDirectoryIsFollowed(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	n := createFile(t, v.Root(), "file", []byte("content"))
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "inside", []byte("content"))
	file, dirPath := b.backingFile(n), b.backingFile(dir)
	b.close(v)
	for _, p := range []string{file, dirPath} {
		if err := os.Rename(p, p+".moved"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Base(p)+".moved", p); err != nil {
			t.Fatal(err)
		}
	}
	v = b.open()
	for _, name := range []string{"file", "dir"} {
		n := lookup(t, v.Root(), name)
		if !n.IsSymlink() {
			t.Errorf("%q is a %o, want a symlink", name, n.Kind())
		}
		if _, err := n.Readlink(); !errors.Is(err, ErrIntegrity) {
			t.Errorf("readlink of %q: %v", name, err)
		}
	}
}
