package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A hard link that somebody planted shares the inode, and so the node, of the
// file whose data it has.
func TestAPlantedHardLinkIsRefusedAndTheFileStaysReadableInAnyOrder(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprint(order, live), func(t *testing.T) {
				b := newBench(t, ModeFile)
				v := b.open()
				na := createFile(t, v.Root(), "a", []byte("content of a"))
				nb := createFile(t, v.Root(), "b", []byte("content of b"))
				a, pb := b.backingFile(na), b.backingFile(nb)
				if !live {
					b.close(v)
				}
				remove(t, pb)
				if err := os.Link(a, pb); err != nil {
					t.Fatal(err)
				}
				if !live {
					v = b.open()
				}
				for range 2 {
					for _, name := range order {
						n := lookup(t, v.Root(), name)
						got, err := tryReadAll(n)
						if name == "b" {
							wantIntegrity(t, err, `"b"`, "another name")
							if err := n.Truncate(t.Context(), 0); err == nil {
								t.Error("it was truncated")
							}
							if _, err := v.Root().Link(n, "c"); err == nil {
								t.Error("it was linked")
							}
							if other := lookup(t, v.Root(), "a"); n == other || n.Generation() == other.Generation() {
								t.Error("the two names have one node")
							}
						} else if err != nil || string(got) != "content of a" {
							t.Errorf("a reads %q, %v", got, err)
						}
					}
				}
				if err := v.Root().Rename("b", v.Root(), "c", 0); err == nil {
					t.Error("it was renamed")
				}
				if err := v.Root().Unlink("b"); err != nil {
					t.Errorf("remove it: %v", err)
				}
				writeAll(t, lookup(t, v.Root(), "a"), []byte("C"), 0)
				v = b.reopened(v)
				if got := readAll(t, lookup(t, v.Root(), "a")); string(got) != "Content of a" {
					t.Errorf("afterwards a reads %q", got)
				}
				if names := list(t, v.Root()); !slices.Equal(names, []string{"a"}) {
					t.Errorf("left are %q", names)
				}
			})
		}
	}
}

func TestAHardLinkUnderANameOfNoMeaningLeavesTheFileReadable(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "a", []byte("content"))
	if err := os.Link(b.backingFile(n), filepath.Join(b.dir, "no-name-of-kmsfs")); err != nil {
		t.Fatal(err)
	}
	broken := brokenName("no-name-of-kmsfs")
	for range 2 {
		_, err := tryReadAll(lookup(t, v.Root(), broken))
		wantIntegrity(t, err, broken)
		if got := readAll(t, lookup(t, v.Root(), "a")); string(got) != "content" {
			t.Errorf("a reads %q", got)
		}
		v = b.reopened(v)
	}
}

func TestWhatIsMovedBehindALiveMountIsRefusedUnderItsNewName(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	file := createFile(t, v.Root(), "file", []byte("content"))
	other := createFile(t, v.Root(), "other", []byte("other"))
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "inside", []byte("inside"))
	empty, _, err := v.Root().Mkdir("empty", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pair := range [][2]*Node{{file, other}, {dir, empty}} {
		if err := unix.Renameat2(unix.AT_FDCWD, b.backingFile(pair[0]), unix.AT_FDCWD, b.backingFile(pair[1]), unix.RENAME_EXCHANGE); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "other"} {
		_, err := tryReadAll(lookup(t, v.Root(), name))
		wantIntegrity(t, err, "another name")
	}
	for _, name := range []string{"empty", "dir"} {
		_, _, err := lookup(t, v.Root(), name).Lookup("inside")
		wantIntegrity(t, err, "another name")
	}
}

func TestHardLinksAndRenamesAreNoStrays(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "a", []byte("content"))
	if _, err := v.Root().Link(n, "b"); err != nil {
		t.Fatal(err)
	}
	// A copy of the whole tree by hard links is nobody's business.
	single := createFile(t, v.Root(), "single", []byte("content"))
	if err := os.Link(b.backingFile(single), filepath.Join(t.TempDir(), "elsewhere")); err != nil {
		t.Fatal(err)
	}
	v = b.reopened(v)
	a := lookup(t, v.Root(), "a")
	if lookup(t, v.Root(), "b") != a {
		t.Error("two names of one file have two nodes")
	}
	if err := v.Root().Rename("single", v.Root(), "renamed", 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "renamed"} {
		if got := readAll(t, lookup(t, v.Root(), name)); string(got) != "content" {
			t.Errorf("%s reads %q", name, got)
		}
	}
}
