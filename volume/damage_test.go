package volume

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// reopened closes and opens the volume again, so that nothing is in memory.
func (b *bench) reopened(v *Volume) *Volume {
	b.t.Helper()
	b.close(v)
	return b.open()
}

func wantIntegrity(t *testing.T, err error, inMessage ...string) {
	t.Helper()
	if !errors.Is(err, ErrIntegrity) {
		t.Fatalf("got %v, want an integrity error", err)
	}
	for _, s := range inMessage {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("message %q does not name %q", err, s)
		}
	}
}

func TestADamagedBlockFailsAloneAndIsNamed(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	want := pattern(40*crypto.BlockSize, 3)
	n := createFile(t, v.Root(), "file", want)
	flipByte(t, b.backingFile(n), crypto.BlockOffset(7)+100)
	v = b.reopened(v)
	n = lookup(t, v.Root(), "file")
	page := make([]byte, crypto.BlockSize)
	for i := range 40 {
		m, err := n.ReadAt(context.Background(), page, int64(i)*crypto.BlockSize)
		if i == 7 {
			wantIntegrity(t, err, `"file"`, n.BackingPath(), "block 7")
			continue
		}
		if err != nil || !bytes.Equal(page[:m], want[i*crypto.BlockSize:][:crypto.BlockSize]) {
			t.Fatalf("block %d: %d, %v", i, m, err)
		}
	}
	// Writing the whole block anew heals it.
	writeAll(t, n, want[7*crypto.BlockSize:8*crypto.BlockSize], 7*crypto.BlockSize)
	if got := readAll(t, n); !bytes.Equal(got, want) {
		t.Error("the file differs after the block was rewritten")
	}
}

func TestDamageToADataFileIsSeen(t *testing.T) {
	const size = 3*crypto.BlockSize + 10
	for name, damage := range map[string]func(t *testing.T, path, other string){
		"the magic is changed":     func(t *testing.T, p, _ string) { flipByte(t, p, 0) },
		"the version is changed":   func(t *testing.T, p, _ string) { flipByte(t, p, 6) },
		"the file ID is changed":   func(t *testing.T, p, _ string) { flipByte(t, p, 9) },
		"the record is changed":    func(t *testing.T, p, _ string) { flipByte(t, p, 60) },
		"the tag is changed":       func(t *testing.T, p, _ string) { flipByte(t, p, 130) },
		"it is emptied":            func(t *testing.T, p, _ string) { truncate(t, p, 0) },
		"the header is cut":        func(t *testing.T, p, _ string) { truncate(t, p, 100) },
		"a block is cut off":       func(t *testing.T, p, _ string) { truncate(t, p, crypto.BlockOffset(3)) },
		"the tail is torn":         func(t *testing.T, p, _ string) { truncate(t, p, crypto.BlockOffset(3)+20) },
		"it is extended by zeros":  func(t *testing.T, p, _ string) { truncate(t, p, crypto.BlockOffset(9)) },
		"a block is erased":        func(t *testing.T, p, _ string) { overwrite(t, p, crypto.BlockOffset(1), make([]byte, 4136)) },
		"another file stands here": func(t *testing.T, p, other string) { replace(t, p, other) },
		"two blocks are swapped": func(t *testing.T, p, _ string) {
			all, _ := os.ReadFile(p)
			one := bytes.Clone(all[crypto.BlockOffset(0):crypto.BlockOffset(1)])
			two := bytes.Clone(all[crypto.BlockOffset(1):crypto.BlockOffset(2)])
			overwrite(t, p, crypto.BlockOffset(0), two)
			overwrite(t, p, crypto.BlockOffset(1), one)
		},
		"a block of the other file is put in": func(t *testing.T, p, other string) {
			all, _ := os.ReadFile(other)
			overwrite(t, p, crypto.BlockOffset(1), all[crypto.BlockOffset(1):crypto.BlockOffset(2)])
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeFile)
			v := b.open()
			n := createFile(t, v.Root(), "file", pattern(size, 1))
			other := createFile(t, v.Root(), "other", pattern(size, 2))
			path, otherPath := b.backingFile(n), b.backingFile(other)
			b.close(v)
			damage(t, path, otherPath)
			before := readPath(t, path)

			v = b.open()
			n = lookup(t, v.Root(), "file")
			_, err := tryReadAll(n)
			wantIntegrity(t, err, `"file"`)
			if _, err := n.WriteAt(context.Background(), []byte("x"), crypto.BlockSize+5); !errors.Is(err, ErrIntegrity) {
				t.Errorf("a write into it: %v, want an integrity error", err)
			}
			if !bytes.Equal(readPath(t, path), before) {
				t.Error("the damaged file was written over")
			}
			// The rest of the volume is not affected, and the file can be removed.
			if got := readAll(t, lookup(t, v.Root(), "other")); !bytes.Equal(got, pattern(size, 2)) {
				t.Error("the other file differs")
			}
			if err := v.Root().Unlink("file"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnOlderBlockPutBackIsSeenWhenASmallFileIsReadWhole(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "file", pattern(5*crypto.BlockSize, 1))
	path := b.backingFile(n)
	old := readPath(t, path)[crypto.BlockOffset(2):crypto.BlockOffset(3)]
	writeAll(t, n, pattern(crypto.BlockSize, 9), 2*crypto.BlockSize)
	b.close(v)
	overwrite(t, path, crypto.BlockOffset(2), old)
	v = b.open()
	_, err := tryReadAll(lookup(t, v.Root(), "file"))
	wantIntegrity(t, err, "older")
}

func TestAFileMovedBehindOurBackIsRefused(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	one := createFile(t, v.Root(), "one", []byte("first"))
	two := createFile(t, v.Root(), "two", []byte("second"))
	p1, p2 := b.backingFile(one), b.backingFile(two)
	dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	createFile(t, dir, "inside", []byte("third"))
	dirPath := b.backingFile(dir)
	other, _, err := v.Root().Mkdir("other", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	otherPath := b.backingFile(other)
	b.close(v)
	if err := unix.Renameat2(unix.AT_FDCWD, p1, unix.AT_FDCWD, p2, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, dirPath, unix.AT_FDCWD, otherPath, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	v = b.open()
	for _, name := range []string{"one", "two"} {
		_, err := tryReadAll(lookup(t, v.Root(), name))
		wantIntegrity(t, err, "another name")
	}
	for _, name := range []string{"dir", "other"} {
		_, _, err := lookup(t, v.Root(), name).Lookup("inside")
		wantIntegrity(t, err, "another name")
	}
}

func TestDamageToASidecarIsSeen(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path, other string){
		"it is missing":              func(t *testing.T, p, _ string) { remove(t, p) },
		"it is emptied":              func(t *testing.T, p, _ string) { truncate(t, p, 0) },
		"it is cut":                  func(t *testing.T, p, _ string) { truncate(t, p, 90) },
		"the commitment is changed":  func(t *testing.T, p, _ string) { flipByte(t, p, int64(len(readPath(t, p)))-1) },
		"the wrapped key is changed": func(t *testing.T, p, _ string) { flipByte(t, p, int64(len(readPath(t, p)))-40) },
		"it is another file's":       func(t *testing.T, p, other string) { replace(t, p, other) },
		"it is a directory": func(t *testing.T, p, _ string) {
			remove(t, p)
			if err := os.Mkdir(p, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"it is a symbolic link": func(t *testing.T, p, other string) {
			remove(t, p)
			if err := os.Symlink(other, p); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for _, mode := range []KeyMode{ModeFile, ModeVolume} {
			t.Run(name+" in mode "+string(mode), func(t *testing.T) {
				b := newBench(t, mode)
				v := b.open()
				id := fileID(t, createFile(t, v.Root(), "file", []byte("content")))
				otherID := fileID(t, createFile(t, v.Root(), "other", []byte("more")))
				b.close(v)
				damage(t, filepath.Join(b.dir, sidecarPath(id)), filepath.Join(b.dir, sidecarPath(otherID)))
				v = b.open()
				_, err := tryReadAll(lookup(t, v.Root(), "file"))
				wantIntegrity(t, err, `"file"`, sidecarPath(id))
				if got := readAll(t, lookup(t, v.Root(), "other")); string(got) != "more" {
					t.Errorf("the other file reads %q", got)
				}
			})
		}
	}
}

func TestSidecarEntriesOfForeignKeysCauseNoKMSCall(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	id := fileID(t, createFile(t, v.Root(), "file", []byte("content")))
	b.close(v)
	path := filepath.Join(b.dir, sidecarPath(id))
	sc, err := crypto.ParseSidecar(readPath(t, path))
	if err != nil {
		t.Fatal(err)
	}
	sc.Keys[0].KeyID = "arn:fake:key/2"
	raw, err := sc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	v = b.open()
	before := b.kms.count("Decrypt")
	_, err = tryReadAll(lookup(t, v.Root(), "file"))
	wantIntegrity(t, err, "none of its entries")
	if n := b.kms.count("Decrypt") - before; n != 0 {
		t.Errorf("%d calls to the KMS, want none", n)
	}
}

func fileID(t *testing.T, n *Node) crypto.ID {
	t.Helper()
	f, err := n.openFile(false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	return f.id
}

func readPath(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t testing.TB, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, by string) {
	t.Helper()
	if err := os.WriteFile(path, readPath(t, by), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
