package volume

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// powerCut makes host state say what it says after one: the volume was open for
// writing in another boot.
func (b *bench) powerCut(v *Volume) {
	b.t.Helper()
	b.close(v)
	hosts, err := openHostStore(b.state)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := hosts.update(v.id, func(h *HostState) { h.Open, h.Boot = true, "another-boot" }); err != nil {
		b.t.Fatal(err)
	}
}

// settle has a check settle what a power cut left.
func settle(t testing.TB, v *Volume) *FsckReport {
	t.Helper()
	r, err := v.Settle(context.Background())
	if err != nil || !r.Complete || !v.settled.Load() {
		t.Fatalf("Settle: %v; settled %v:%s", err, v.settled.Load(), show(r))
	}
	return r
}

func TestAfterAPowerCutMismatchesAreReportedAndAcceptedUntilACheckSettlesThem(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"the file was not extended": func(t *testing.T, p string) { truncate(t, p, crypto.BlockOffset(2)) },
		"the tail is torn":          func(t *testing.T, p string) { truncate(t, p, crypto.BlockOffset(2)+20) },
		"a block was not written":   func(t *testing.T, p string) { overwrite(t, p, crypto.BlockOffset(1), make([]byte, 4136)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeFile)
			v := b.open()
			want := pattern(3*crypto.BlockSize, 1)
			path := b.backingFile(createFile(t, v.Root(), "file", want))
			b.powerCut(v)
			damage(t, path)
			v = b.open()
			n := lookup(t, v.Root(), "file")
			got := readAll(t, n)
			if !bytes.Equal(got[:crypto.BlockSize], want[:crypto.BlockSize]) {
				t.Error("the first block differs")
			}
			if log := b.log.String(); !strings.Contains(log, "accepted after a power cut") || !strings.Contains(log, `file`) {
				t.Errorf("nothing was reported: %s", log)
			}
			// What is written now is sealed again, without a root.
			writeAll(t, n, want, 0)
			settle(t, v)
			b.close(v)
			v = b.open()
			if v.relaxed {
				t.Fatal("still relaxed after a check")
			}
			n = lookup(t, v.Root(), "file")
			if got := readAll(t, n); !bytes.Equal(got, want) {
				t.Error("the rewritten file differs")
			}
			checkSeal(t, n)
			path = b.backingFile(n)
			b.close(v)
			damage(t, path)
			v = b.open()
			_, err := tryReadAll(lookup(t, v.Root(), "file"))
			wantIntegrity(t, err)
		})
	}
}

func TestAMixtureOfOldAndNewBlocksIsAcceptedOnlyAfterAPowerCut(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	n := createFile(t, v.Root(), "file", pattern(3*crypto.BlockSize, 1))
	path := b.backingFile(n)
	content := readPath(t, path)
	older, old := content[crypto.BlockOffset(0):crypto.BlockOffset(1)], content[crypto.BlockOffset(1):crypto.BlockOffset(2)]
	writeAll(t, n, pattern(3*crypto.BlockSize, 2), 0)
	b.powerCut(v)
	overwrite(t, path, crypto.BlockOffset(1), old)
	v = b.open()
	got := readAll(t, lookup(t, v.Root(), "file"))
	if !bytes.Equal(got[crypto.BlockSize:2*crypto.BlockSize], pattern(3*crypto.BlockSize, 1)[crypto.BlockSize:2*crypto.BlockSize]) {
		t.Error("the old block does not read as it was")
	}
	// Until it is settled, and not by a clean end; then it is what the seal says.
	v = b.reopened(v)
	if got := readAll(t, lookup(t, v.Root(), "file")); !bytes.Equal(got[:crypto.BlockSize], pattern(crypto.BlockSize, 2)) {
		t.Error("the first block is not the new one")
	}
	if r := settle(t, v); len(r.Findings) != 1 || r.Findings[0].Kind != FindingRoot || !r.Findings[0].Repaired {
		t.Errorf("found:%s", show(r))
	}
	checkSeal(t, lookup(t, v.Root(), "file"))
	v = b.reopened(v)
	checkSeal(t, lookup(t, v.Root(), "file"))
	b.close(v)
	overwrite(t, path, crypto.BlockOffset(0), older)
	v = b.open()
	_, err := tryReadAll(lookup(t, v.Root(), "file"))
	wantIntegrity(t, err, "older")
}

func TestABlockThatWasNotWrittenReadsAsBeforeWhenATornOneIsBesideIt(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	want := pattern(3*crypto.BlockSize, 1)
	n := createFile(t, v.Root(), "file", want)
	path := b.backingFile(n)
	b.powerCut(v)
	overwrite(t, path, crypto.BlockOffset(1), make([]byte, crypto.CipherBlockSize)) // a hole that was about to be filled
	overwrite(t, path, crypto.BlockOffset(2)+100, make([]byte, 512))
	v = b.open()
	look := func(when string) {
		t.Helper()
		n := lookup(t, v.Root(), "file")
		for block, want := range [][]byte{want[:crypto.BlockSize], make([]byte, crypto.BlockSize)} {
			got := make([]byte, crypto.BlockSize)
			if _, err := n.ReadAt(context.Background(), got, int64(block)*crypto.BlockSize); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, block %d: %v", when, block, err)
			}
		}
		_, err := n.ReadAt(context.Background(), make([]byte, crypto.BlockSize), 2*crypto.BlockSize)
		wantIntegrity(t, err, "block 2")
	}
	look("before it is settled")
	settle(t, v)
	v = b.reopened(v)
	look("afterwards")
}

func TestAFileAcceptedUnderAWrongNameKeepsItsSidecarWhenItIsRemoved(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	n := createFile(t, v.Root(), "file", []byte("content"))
	id, path := fileID(t, n), b.backingFile(n)
	other := createFile(t, v.Root(), "other", []byte("x"))
	otherPath := b.backingFile(other)
	b.powerCut(v)
	// A copy of the file stands under another name.
	replace(t, otherPath, path)
	v = b.open()
	n = lookup(t, v.Root(), "other")
	if err := v.Root().Unlink("other"); err != nil {
		t.Fatal(err)
	}
	n.Forget()
	b.close(v)
	if _, err := os.Stat(b.dir + "/" + sidecarPath(id)); err != nil {
		t.Errorf("the sidecar went with the copy: %v", err)
	}
	v = b.open()
	if got := readAll(t, lookup(t, v.Root(), "file")); string(got) != "content" {
		t.Errorf("read %q", got)
	}
}

// plainRename is a store that knows no flags of renameat2, as network file
// systems do not.
type plainRename struct{ System }

func (k plainRename) Renameat2(od int, on string, nd int, nn string, flags uint) error {
	if flags != 0 {
		return unix.EINVAL
	}
	return k.System.Renameat2(od, on, nd, nn, 0)
}

func TestStoresWithoutRenameFlagsServeAllButExchange(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open(func(o *Options) { o.Backing = plainRename{} })
	root := v.Root()
	for _, name := range []string{"a", "b", "full"} {
		if _, _, err := root.Mkdir(name, 0o755, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	createFile(t, lookup(t, root, "a"), "inside", []byte("content"))
	createFile(t, lookup(t, root, "full"), "inside", nil)
	createFile(t, root, "file", nil)
	if _, _, err := root.Mkdir("a", 0o755, Owner{}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("mkdir over a directory: %v", err)
	}
	if _, _, err := root.Mkdir("file", 0o755, Owner{}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("mkdir over a file: %v", err)
	}
	if err := root.Rename("a", root, "full", 0); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("rename over a full directory: %v", err)
	}
	if err := root.Rename("a", root, "b", 0); err != nil {
		t.Errorf("rename over an empty directory: %v", err)
	}
	if err := root.Rename("b", root, "c", RenameNoReplace); err != nil {
		t.Errorf("rename to a new name: %v", err)
	}
	if err := root.Rename("c", root, "full", RenameNoReplace); !errors.Is(err, unix.EEXIST) {
		t.Errorf("rename to a name that is taken: %v", err)
	}
	if err := root.Rename("c", root, "full", RenameExchange); !errors.Is(err, unix.EINVAL) {
		t.Errorf("exchange: %v", err)
	}
	if got := readAll(t, lookup(t, lookup(t, root, "c"), "inside")); string(got) != "content" {
		t.Errorf("read %q", got)
	}
	removeTree(t, root, "c")
	removeTree(t, root, "full")
}
