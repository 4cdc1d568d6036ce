package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// treeIDs are the IDs of a directory and of all that is in it.
func treeIDs(t *testing.T, v *Volume, n *Node, at string, out map[string]crypto.ID) map[string]crypto.ID {
	t.Helper()
	for _, name := range list(t, n) {
		child := lookup(t, n, name)
		id, err := child.xattrID()
		ok(t, err)
		if id.IsZero() {
			continue // a symlink or special file
		}
		out[at+name] = id
		if child.IsDir() {
			treeIDs(t, v, child, at+name+"/", out)
		}
	}
	return out
}

// Wherever a tree of directories was copied to, it is whole after a repair, shares
// no ID with the original, and that is what it was.
func TestACopiedTreeGetsIDsOfItsOwn(t *testing.T) {
	for name, to := range map[string]func(at func(string) string) string{
		"beside it":                    func(at func(string) string) string { return at("dir") + "-copy" },
		"in place of another":          func(at func(string) string) string { return at("empty") },
		"into itself":                  func(at func(string) string) string { return filepath.Join(at("dir"), "copy") },
		"in place of one in a subtree": func(at func(string) string) string { return at("dir/attributes") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			_, at := b.furnished()
			path := to(at)
			_ = os.Remove(path)
			v := b.open()
			want := treeIDs(t, v, lookup(t, v.Root(), "dir"), "", make(map[string]crypto.ID))
			before := contents(t, v)
			b.close(v)
			aside := filepath.Join(t.TempDir(), "copy")
			copyTree(t, at("dir"), aside)
			copyTree(t, aside, path)

			r := b.mustFsck(FsckOptions{Repair: true})
			if r.Remaining != 0 {
				t.Fatalf("%d errors remain:%s", r.Remaining, show(r))
			}
			if again := b.mustFsck(FsckOptions{Repair: true}); len(again.Findings) != 0 {
				t.Fatalf("the second repair finds:%s", show(again))
			}
			v = b.open()
			all := treeIDs(t, v, v.Root(), "", make(map[string]crypto.ID))
			seen := make(map[crypto.ID]string)
			for p, id := range all {
				if p == "linked" || p == "dir/other name" {
					continue // one file
				}
				if seen[id] != "" {
					t.Errorf("%q and %q have one ID", p, seen[id])
				}
				seen[id] = p
			}
			for p, id := range want {
				if all["dir/"+p] != id {
					t.Errorf("%q has another ID", p)
				}
			}
			after := contents(t, v)
			for p, content := range before {
				if after[p] != content {
					t.Errorf("%q was changed", p)
				}
			}
			var copied string
			for p := range after {
				if rest, is := strings.CutSuffix(p, "/"+longName+"/deep"); is && p != "dir/"+longName+"/deep" {
					copied = rest
				}
			}
			if copied == "" {
				t.Fatal("the copy is gone")
			}
			for p := range want {
				if after[copied+"/"+p] != before["dir/"+p] {
					t.Errorf("%q of the copy reads otherwise", p)
				}
			}
			dir := v.Root()
			for part := range strings.SplitSeq(copied, "/") {
				dir = lookup(t, dir, part)
			}
			deep := lookup(t, dir, longName)
			if value, err := deep.Getxattr("user.name"); err != nil || string(value) != "another" {
				t.Errorf("attribute of a directory in the copy: %q, %v", value, err)
			}
			if a, err := deep.Attr(); err != nil || a.Mode&0o7777 != 0o700 {
				t.Errorf("mode of a directory in the copy: %o, %v", a.Mode, err)
			}
			if a, err := dir.Attr(); err != nil || a.Mode&0o7777 != 0o755 {
				t.Errorf("mode of the copy: %o, %v", a.Mode, err)
			}
		})
	}
}

// Both a directory that was renamed and a copy of before, put back from a backup,
// are where they belong. Each keeps its name and content.
func TestADirectoryPutBackFromABackupAfterARename(t *testing.T) {
	b := newBench(t, ModeVolume)
	_, at := b.furnished()
	aside := filepath.Join(t.TempDir(), "copy")
	copyTree(t, at("dir"), aside)
	v := b.open()
	ok(t, v.Root().Rename("dir", v.Root(), "new name", 0))
	before := contents(t, v)
	b.close(v)
	copyTree(t, aside, at("dir"))
	checked := b.mustFsck(FsckOptions{})
	if got, want := kinds(checked), []string{"duplicate", "duplicate-directory"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q:%s", got, want, show(checked))
	}
	if r := b.mustFsck(FsckOptions{Repair: true}); r.Remaining != 0 {
		t.Errorf("%d errors remain:%s", r.Remaining, show(r))
	}
	if again := b.mustFsck(FsckOptions{Repair: true}); len(again.Findings) != 0 {
		t.Errorf("the second repair finds:%s", show(again))
	}
	v = b.open()
	after := contents(t, v)
	for p, content := range before {
		if after[p] != content {
			t.Errorf("%q was changed", p)
		}
		if rest, is := strings.CutPrefix(p, "new name"); is && after["dir"+rest] != content {
			t.Errorf("%q of the copy reads otherwise", p)
		}
	}
}

// What a copy has that nobody can read goes to lost+found with the old directory.
func TestWhatCannotBeReadOfACopiedDirectoryIsSetAside(t *testing.T) {
	b := newBench(t, ModeVolume)
	_, at := b.furnished()
	copyTree(t, at("dir/"+longName), at("dir/"+longName)+"-copy")
	var stored string
	for name := range xattrsOf(t, at("dir/"+longName)) {
		stored = name
	}
	ok(t, unix.Setxattr(at("dir/"+longName)+"-copy", stored, []byte("nonsense, but long enough for a nonce and a tag"), 0))
	r := b.mustFsck(FsckOptions{Repair: true})
	if r.Remaining != 0 {
		t.Errorf("%d errors remain:%s", r.Remaining, show(r))
	}
	if again := b.mustFsck(FsckOptions{Repair: true}); len(again.Findings) != 0 {
		t.Errorf("the second repair finds:%s", show(again))
	}
	// By which name it is there depends on the one that it was given before.
	kept, err := filepath.Glob(filepath.Join(b.dir, metaDir, lostFoundDir, "*", "*"))
	ok(t, err)
	found := false
	for _, path := range kept {
		found = found || string(xattrsOf(t, path)[stored]) == "nonsense, but long enough for a nonce and a tag"
	}
	if !found {
		t.Error("the damaged attribute is gone")
	}
}

// Where the names of both would be too long, the copy's is cut beside it, and it has
// the whole one again wherever a repair was interrupted.
func TestACopyWhoseNameIsCutGetsItBack(t *testing.T) {
	b := newBench(t, ModeVolume)
	b.store = &tap{Backing: System{}, through: idle}
	v := b.open()
	long := strings.Repeat("ü", 127) + "x" // 255 bytes
	original, _, err := v.Root().Mkdir("zz", 0o755, Owner{})
	ok(t, err)
	createFile(t, original, "file", pattern(5000, 1))
	ok(t, original.Setxattr("user.name", []byte("value"), 0))
	place := b.backingFile(createFile(t, v.Root(), long, nil))
	from := b.backingFile(original)
	b.close(v)
	ok(t, os.Remove(place))
	copyTree(t, from, place)
	for name := range xattrsOf(t, place) {
		ok(t, unix.Setxattr(place, name, []byte("nonsense, but long enough for a nonce and a tag"), 0))
	}
	saved := b.save()

	gathered := 0
	for _, i := range interruptions(t, b) {
		b.load(saved)
		if i.how != afterChange || !interrupt(b, i) {
			continue
		}
		v := b.open(func(o *Options) { o.ReadOnly = true })
		for _, name := range list(t, v.Root()) {
			if strings.Contains(name, besideMark) {
				gathered++
				if !utf8.ValidString(name) || len(name) > MaxName {
					t.Errorf("%v: beside it is %q", i, name)
				}
			}
		}
		b.close(v)
		r := b.mustFsck(FsckOptions{Repair: true})
		if again := b.mustFsck(FsckOptions{Repair: true}); r.Remaining != 0 || len(again.Findings) != 0 {
			t.Errorf("%v: the next repairs find:%s\nand:%s", i, show(r), show(again))
		}
		v = b.open()
		if got := list(t, v.Root()); !slices.Equal(got, []string{"zz", long}) && !slices.Equal(got, []string{long, "zz"}) {
			t.Fatalf("%v: %q, after a repair:%s", i, got, show(r))
		}
		for _, name := range []string{"zz", long} {
			if got := readAll(t, lookup(t, lookup(t, v.Root(), name), "file")); !slices.Equal(got, pattern(5000, 1)) {
				t.Errorf("%v: the content in %q is another", i, name)
			}
		}
		b.close(v)
	}
	if gathered < 5 {
		t.Errorf("after %d interruptions something stood beside the copy", gathered)
	}
}
