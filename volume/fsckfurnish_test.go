package volume

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// furnish makes one of each kind of object.
func furnish(t testing.TB, root *Node) {
	t.Helper()
	long := strings.Repeat("l", 200)
	createFile(t, root, "empty", nil)
	createFile(t, root, "small", pattern(5000, 1))
	createFile(t, root, "big", pattern(300*crypto.BlockSize, 2))
	writeAll(t, createFile(t, root, "sparse", pattern(100, 3)), pattern(5000, 4), 400*crypto.BlockSize)
	linked := createFile(t, root, "linked", pattern(9000, 5))
	dir, _, err := root.Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Link(linked, "other name"); err != nil {
		t.Fatal(err)
	}
	deep, _, err := dir.Mkdir(long, 0o700, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, deep, "deep", pattern(3*crypto.BlockSize, 6))
	createFile(t, deep, long, pattern(10, 7))
	for name, target := range map[string]string{"symlink": "some/where", "long symlink": strings.Repeat("t", 3500)} {
		if _, _, err := root.Symlink(name, target, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := dir.Mknod("fifo", unix.S_IFIFO|0o600, 0, 0, Owner{}); err != nil {
		t.Fatal(err)
	}
	x := createFile(t, dir, "attributes", pattern(1, 8))
	if err := x.Setxattr("user.name", []byte("value"), 0); err != nil {
		t.Fatal(err)
	}
	if err := deep.Setxattr("user.name", []byte("another"), 0); err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "read only", pattern(50, 9))
	mode := uint32(0o400)
	if _, err := lookup(t, dir, "read only").SetAttr(context.Background(), Change{Mode: &mode}); err != nil {
		t.Fatal(err)
	}
}

// contents is what can be read: by path, the hash of a file, the target of a
// symlink, or the kind of something else; or "error".
func contents(t testing.TB, v *Volume) map[string]string {
	t.Helper()
	out := make(map[string]string)
	var walk func(n *Node, at string)
	walk = func(n *Node, at string) {
		for _, name := range list(t, n) {
			child, _, err := n.Lookup(name)
			if err != nil {
				out[at+name] = "error"
				continue
			}
			switch {
			case child.IsDir():
				out[at+name] = "directory"
				walk(child, at+name+"/")
			case child.IsRegular():
				if b, err := tryReadAll(child); err != nil {
					out[at+name] = "error"
				} else {
					out[at+name] = fmt.Sprintf("%x", sha256.Sum256(b))
				}
			case child.IsSymlink():
				if out[at+name], err = child.Readlink(); err != nil {
					out[at+name] = "error"
				}
			default:
				out[at+name] = fmt.Sprint(child.Kind())
			}
		}
	}
	walk(v.Root(), "")
	return out
}

// differ tells where got is not want, each path once.
func differ(want, got map[string]string) []string {
	paths := make(map[string]bool)
	for p := range want {
		paths[p] = want[p] != got[p]
	}
	for p := range got {
		paths[p] = want[p] != got[p]
	}
	maps.DeleteFunc(paths, func(_ string, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(paths))
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyPath(t *testing.T, from, to string) {
	t.Helper()
	ok(t, os.WriteFile(to, readPath(t, from), 0o644))
}

func (b *bench) furnished() (before map[string]string, at func(string) string) {
	v := b.open()
	furnish(b.t, v.Root())
	before = contents(b.t, v)
	paths := make(map[string]string)
	for p := range before {
		n := v.Root()
		for part := range strings.SplitSeq(p, "/") {
			n = lookup(b.t, n, part)
		}
		paths[p] = b.backingFile(n)
	}
	b.close(v)
	return before, func(p string) string {
		if paths[p] == "" {
			b.t.Fatalf("no %q", p)
		}
		return paths[p]
	}
}

func (b *bench) id(t *testing.T, path string) crypto.ID {
	t.Helper()
	id, err := crypto.HeaderFileID(readPath(t, path)[:crypto.RecordOffset])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) fsck(f FsckOptions, edit ...func(*Options)) (*FsckReport, error) {
	o := b.options()
	for _, e := range edit {
		e(&o)
	}
	return Fsck(context.Background(), b.dir, o, f)
}

func (b *bench) mustFsck(f FsckOptions) *FsckReport {
	b.t.Helper()
	r, err := b.fsck(f)
	if err != nil {
		b.t.Fatalf("Fsck: %v", err)
	}
	return r
}

func kinds(r *FsckReport) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, string(f.Kind))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func show(r *FsckReport) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n  %s (repaired %v)", f.String(), f.Repaired)
	}
	return b.String()
}

// unhashed replaces what is different each time in the names that fsck gives.
func unhashed(paths []string) []string {
	out := slices.Clone(paths)
	for i, p := range out {
		parts := strings.Split(p, "/")
		for j, part := range parts {
			for _, prefix := range []string{"recovered.", brokenPrefix, "small.conflict-", "dir.conflict-"} {
				if strings.HasPrefix(part, prefix) {
					parts[j] = prefix
				}
			}
		}
		out[i] = strings.Join(parts, "/")
	}
	slices.Sort(out)
	return out
}
