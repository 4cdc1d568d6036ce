package volume

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/crypto"
)

// alter puts with at an offset into a file, and then cuts it, or extends it by
// zeros, to size. It tells whether that changes anything.
func alter(t testing.TB, path string, at uint32, with []byte, size uint32) bool {
	t.Helper()
	before := readPath(t, path)
	after := make([]byte, max(len(before), int(at)+len(with)))
	copy(after, before)
	copy(after[at:], with)
	after = append(after, make([]byte, max(0, int(size)-len(after)))...)[:size]
	if err := os.WriteFile(path, after, 0o600); err != nil {
		t.Fatal(err)
	}
	return !bytes.Equal(before, after)
}

// fuzzedSize bounds what a fuzzer makes of a file, in bytes.
const fuzzedSize = 1 << 17

// FuzzDataFile changes some bytes of a data file, and its length. It is read as
// it was, or that is an error.
func FuzzDataFile(f *testing.F) {
	b := newBench(f, ModeVolume)
	v := b.open(func(o *Options) { o.Backing = quick{} })
	want := map[string][]byte{"dense": pattern(2*crypto.BlockSize+100, 1), "empty": nil}
	sparse := append(make([]byte, 3*crypto.BlockSize), pattern(crypto.BlockSize, 2)...)
	want["sparse"] = append(sparse, pattern(50, 3)...)
	names := []string{"dense", "empty", "sparse"}
	whole := map[string][]byte{}
	for _, name := range names {
		n := createFile(f, v.Root(), name, nil)
		content := want[name]
		if name == "sparse" { // zeros that are written are no hole
			writeAll(f, n, content[3*crypto.BlockSize:], 3*crypto.BlockSize)
		} else {
			writeAll(f, n, content, 0)
		}
		whole[name] = readPath(f, b.backingFile(n))
		size := uint32(len(whole[name]))
		f.Add(uint8(slices.Index(names, name)), uint32(crypto.RecordOffset), []byte{1}, size)
		f.Add(uint8(slices.Index(names, name)), uint32(8), []byte("another ID"), size)
		f.Add(uint8(slices.Index(names, name)), size, []byte{}, size-20)
		f.Add(uint8(slices.Index(names, name)), size, []byte{}, size+2*crypto.CipherBlockSize)
		f.Add(uint8(slices.Index(names, name)), uint32(crypto.BlockOffset(0)), make([]byte, crypto.CipherBlockSize), size)
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, with []byte, size uint32) {
		if at > fuzzedSize || size > fuzzedSize {
			t.Skip("large")
		}
		name := names[int(which)%len(names)]
		n := lookup(t, v.Root(), name)
		path := b.backingFile(n)
		if err := os.WriteFile(path, whole[name], 0o600); err != nil {
			t.Fatal(err)
		}
		changed := alter(t, path, at, with, size)
		n.Forget()
		got, err := tryReadAll(lookup(t, v.Root(), name))
		switch {
		case changed && err == nil:
			t.Fatalf("%s was changed, and is read as %d bytes, without an error", name, len(got))
		case !changed && (err != nil || !bytes.Equal(got, want[name])):
			t.Fatalf("%s was not changed: %v", name, err)
		case err != nil:
			wantIntegrity(t, err, name)
		}
	})
}

// filesByRole lists the files of a backing directory, in an order that does not
// depend on IDs and encrypted names: inputs are worth keeping.
func filesByRole(t testing.TB, dir string) (files []string) {
	t.Helper()
	roles, sizes := map[string]string{}, map[string]int{}
	walk := func(visit func(name, role string)) {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				name, _ := filepath.Rel(dir, p)
				role := strings.TrimLeft(filepath.Base(name), "-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
				if filepath.Dir(name) == metaDir {
					role = name
				}
				visit(name, role)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	walk(func(name, role string) {
		b := readPath(t, filepath.Join(dir, name))
		if id, err := crypto.HeaderFileID(b); err == nil {
			sizes[id.String()] = len(b)
		}
		roles[name] = fmt.Sprint(strings.Count(name, "/"), role, len(b))
		files = append(files, name)
	})
	walk(func(name, _ string) {
		if size, ok := sizes[filepath.Base(name)]; ok {
			roles[name] = fmt.Sprint("sidecar of ", size)
		}
	})
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(roles[a], roles[b]) })
	distinct := map[string]bool{}
	for _, role := range roles {
		distinct[role] = true
	}
	if len(files) < 8 || len(distinct) != len(files) {
		t.Fatalf("%d files of %d roles: %q", len(files), len(distinct), roles)
	}
	return files
}

// FuzzFsck changes some bytes of any file of a volume, or its length. A check
// finds that or says that it is harmless; a repair takes nothing away that could
// be read before it, and leaves nothing for the next one to mend.
func FuzzFsck(f *testing.F) {
	b := newBench(f, ModeFile)
	v := b.open()
	long := strings.Repeat("l", 200)
	createFile(f, v.Root(), "file", pattern(2*crypto.BlockSize+100, 1))
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		f.Fatal(err)
	}
	createFile(f, dir, long, pattern(10, 2))
	linked := createFile(f, v.Root(), "linked", pattern(500, 3))
	if _, err := dir.Link(linked, "other name"); err != nil {
		f.Fatal(err)
	}
	if _, _, err := dir.Symlink("symlink", strings.Repeat("t", 3500), Owner{}); err != nil {
		f.Fatal(err)
	}
	quietPool(v)
	b.close(v)
	saved := []string{filepath.Join(f.TempDir(), "tree"), filepath.Join(f.TempDir(), "state")}
	for name := range reserveNames() { // nothing in it counts
		ok(f, os.Remove(filepath.Join(b.dir, metaDir, name)))
	}
	copyTree(f, b.dir, saved[0])
	copyTree(f, b.state, saved[1])
	files := filesByRole(f, saved[0])
	for i, name := range files {
		size := uint32(len(readPath(f, filepath.Join(saved[0], name))))
		f.Add(uint8(i), size/2, []byte("x"), size)
		f.Add(uint8(i), uint32(crypto.RecordOffset), pattern(600, 9), size) // record and blocks
		f.Add(uint8(i), uint32(0), []byte{}, size/2)
		f.Add(uint8(i), uint32(0), []byte{}, size+50)
	}
	store := func(o *Options) { o.Backing = quick{} }
	f.Fuzz(func(t *testing.T, which uint8, at uint32, with []byte, size uint32) {
		if at > fuzzedSize || size > fuzzedSize {
			t.Skip("large")
		}
		for i, place := range []string{b.dir, b.state} {
			if err := os.RemoveAll(place); err != nil {
				t.Fatal(err)
			}
			copyTree(t, saved[i], place)
		}
		name := files[int(which)%len(files)]
		changed := alter(t, filepath.Join(b.dir, name), at, with, size)
		read := func() map[string]string {
			v, err := b.tryOpen(store, func(o *Options) { o.ReadOnly = true })
			if err != nil {
				return nil
			}
			defer v.Close()
			return contents(t, v)
		}
		before := read()
		first, err := b.fsck(FsckOptions{Repair: true}, store)
		if err != nil {
			if before == nil && strings.HasPrefix(name, metaDir+"/"+configName) {
				return // and it says so
			}
			t.Fatalf("%s: %v", name, err)
		}
		if !changed && first.Errors > 0 {
			t.Fatalf("%s was not changed:%s", name, show(first))
		}
		after := read()
		for path, value := range before {
			if value != "error" && after[path] != value && !strings.Contains(path, brokenPrefix) {
				t.Fatalf("%s: %q could be read before the repair, now it is %q:%s", name, path, after[path], show(first))
			}
		}
		again, err := b.fsck(FsckOptions{Repair: true}, store)
		if err != nil || again.Remaining > first.Remaining || slices.ContainsFunc(again.Findings, func(f Finding) bool { return f.Repaired }) {
			t.Fatalf("%s: the second repair: %v%s\nafter%s", name, err, show(again), show(first))
		}
	})
}
