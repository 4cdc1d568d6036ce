package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"kmsfs/crypto"
)

// lostBench is a volume of some files, and where they are.
func lostBench(t *testing.T, files int) (b *bench, at []string, ids []crypto.ID) {
	b = newBench(t, ModeFile)
	v := b.open()
	for i := range files {
		createFile(t, v.Root(), fmt.Sprint(i), pattern(100+5000*(i%8), byte(i)))
		at = append(at, b.backingFile(lookup(t, v.Root(), fmt.Sprint(i))))
	}
	b.close(v)
	for _, path := range at {
		ids = append(ids, b.id(t, path))
	}
	return b, at, ids
}

func TestFilesWithDamagedIDsGetThoseBackWhoseKeysNothingUses(t *testing.T) {
	b, at, ids := lostBench(t, 8)
	for i, path := range at[:3] {
		flipByte(t, path, int64(8+i))
	}
	b3 := readPath(t, at[3])
	overwrite(t, at[3], 8, make([]byte, 100)) // the record, too
	for _, path := range at[5:] {
		ok(t, os.Remove(path)) // their keys are orphans
	}
	checked := b.mustFsck(FsckOptions{})
	if got, want := kinds(checked), []string{"header", "orphaned-sidecar"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q:%s", got, want, show(checked))
	}
	if got := readPath(t, at[3]); bytes.Equal(got[:crypto.HeaderSize], b3[:crypto.HeaderSize]) {
		t.Error("a check repaired")
	}
	repaired := b.mustFsck(FsckOptions{Repair: true})
	if repaired.Remaining != 0 || repaired.Files != 5 {
		t.Errorf("%d errors remain, %d files:%s", repaired.Remaining, repaired.Files, show(repaired))
	}
	for i, path := range at[:5] {
		if got := b.id(t, path); got != ids[i] {
			t.Errorf("file %d has the ID %s, had %s", i, got, ids[i])
		}
	}
	if again := b.mustFsck(FsckOptions{Repair: true}); len(again.Findings) != 0 || again.Sidecars != 5 {
		t.Errorf("%d sidecars, want 5; the second repair finds:%s", again.Sidecars, show(again))
	}
	v := b.open()
	for i := range at[:5] {
		if got := readAll(t, lookup(t, v.Root(), fmt.Sprint(i))); !bytes.Equal(got, pattern(100+5000*(i%8), byte(i))) {
			t.Errorf("file %d reads otherwise", i)
		}
	}
}

// The keys of other files, however many nothing uses, are not taken for that of a
// file whose own is gone, and all stay: one might be.
func TestAFileDoesNotGetTheIDOfAnother(t *testing.T) {
	for _, damage := range []int{1, 100} { // the ID, or the record, too
		b, at, ids := lostBench(t, 4)
		ok(t, os.Remove(filepath.Join(b.dir, sidecarPath(ids[0]))))
		overwrite(t, at[0], 8, bytes.Repeat([]byte{7}, damage))
		for _, path := range at[1:] {
			ok(t, os.Remove(path))
		}
		before := readPath(t, at[0])
		r := b.mustFsck(FsckOptions{Repair: true})
		if got, want := kinds(r), []string{"orphaned-sidecar", "sidecar"}; !slices.Equal(got, want) || r.Remaining != 1 {
			t.Errorf("found %q, want %q:%s", got, want, show(r))
		}
		if !bytes.Equal(before, readPath(t, at[0])) {
			t.Error("the file was changed")
		}
		if again := b.mustFsck(FsckOptions{}); again.Sidecars != 3 {
			t.Errorf("%d sidecars are left, want 3", again.Sidecars)
		}
	}
}

// To try a key with a block is a call to the KMS: it is made only where few keys
// are unused.
func TestFewKeysAreTriedWithBlocks(t *testing.T) {
	b, at, _ := lostBench(t, maxKeyTries+2)
	overwrite(t, at[0], 8, make([]byte, 100))
	for _, path := range at[1:] {
		ok(t, os.Remove(path))
	}
	calls := b.kms.count("Decrypt")
	r := b.mustFsck(FsckOptions{Repair: true})
	if got := b.kms.count("Decrypt") - calls; got > 2 {
		t.Errorf("%d calls to the KMS for one file", got)
	}
	if r.Remaining != 1 || !slices.Contains(kinds(r), "sidecar") {
		t.Errorf("%s", show(r))
	}
	if again := b.mustFsck(FsckOptions{}); again.Sidecars != maxKeyTries+2 {
		t.Errorf("%d sidecars are left, want all %d", again.Sidecars, maxKeyTries+2)
	}
}
