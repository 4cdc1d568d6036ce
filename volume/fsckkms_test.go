package volume

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// backingFiles is the content of all files in the backing directory, but for those
// that each mount makes for itself.
func (b *bench) backingFiles() map[string]string {
	b.t.Helper()
	out := make(map[string]string)
	ok(b.t, filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(b.dir, path)
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(rel, metaDir+"/redo/") || strings.HasPrefix(rel, metaDir+"/"+sessionsDir+"/") {
			return err
		}
		out[rel] = string(readPath(b.t, path))
		return nil
	}))
	return out
}

// A KMS that does not answer, or says no, says nothing of a file: nothing is set
// aside, cut or removed because a key could not be had.
func TestARepairChangesNoFileWhoseKeyCannotBeHad(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		ends bool // the check
	}{
		"the KMS is down":            {kmsprovider.ErrUnavailable, true},
		"the use of keys is denied":  {kmsprovider.ErrAccessDenied, false},
		"the wrapping key is off":    {kmsprovider.ErrKeyDisabled, false},
		"the wrapping key is gone":   {kmsprovider.ErrKeyNotFound, false},
		"the KMS has another's keys": {errors.New("no such thing"), true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, ModeFile)
			intact, at := b.furnished()
			flipByte(t, at("big"), 60)                      // only its blocks could prove which file it is
			overwrite(t, at("small"), 8, make([]byte, 100)) // and of these one of the keys
			magicless := "dir/" + longName + "/deep"
			overwrite(t, at(magicless), 0, make([]byte, 100))
			truncate(t, at("dir/attributes"), crypto.HeaderSize+20)
			ok(t, os.Remove(at("sparse")))
			before := b.backingFiles()
			var calls atomic.Int32
			b.kms.setFail(func(op string) error {
				if op == "Decrypt" && calls.Add(1) > 1 { // the first is the volume key's
					return c.err
				}
				return nil
			})
			r, err := b.fsck(FsckOptions{Repair: true})
			if c.ends != (err != nil) || c.ends && !errors.Is(err, c.err) {
				t.Errorf("Fsck: %v", err)
			}
			if r.Complete {
				t.Error("it calls itself complete")
			}
			if !c.ends && !slices.Contains(kinds(r), string(FindingRefused)) {
				t.Errorf("it does not say what was refused:%s", show(r))
			}
			if got := differ(before, b.backingFiles()); len(got) > 0 {
				t.Errorf("changed: %q:%s", got, show(r))
			}
			b.kms.setFail(nil)
			r = b.mustFsck(FsckOptions{Repair: true})
			for _, f := range r.Findings {
				if !f.Harmless && !f.Repaired {
					t.Errorf("left once the KMS is back: %s", f.String())
				}
			}
			v := b.open()
			defer b.close(v)
			after := contents(t, v)
			for _, path := range []string{"big", "small", magicless} {
				if after[path] != intact[path] {
					t.Errorf("%q does not read as before", path)
				}
			}
		})
	}
}

// A KMS that asks for less is asked again.
func TestACheckGoesOnAfterTheKMSThrottled(t *testing.T) {
	b := newBench(t, ModeFile)
	b.furnished()
	var calls atomic.Int32
	b.kms.setFail(func(op string) error {
		if n := calls.Add(1); n > 1 && n < 4 {
			return kmsprovider.ErrThrottled
		}
		return nil
	})
	if r := b.mustFsck(FsckOptions{}); !r.Complete || len(r.Findings) > 0 {
		t.Errorf("complete %v, found:%s", r.Complete, show(r))
	}
}

// In a copy that is still being made, keys may come before their files.
func TestARepairKeepsKeysThatCameOfLate(t *testing.T) {
	b := newBench(t, ModeVolume)
	_, at := b.furnished()
	sidecar := filepath.Join(b.dir, sidecarPath(b.id(t, at("big"))))
	content := readPath(t, at("big"))
	ok(t, os.Remove(at("big")))
	r := b.mustFsck(FsckOptions{Repair: true, Grace: time.Hour})
	if !slices.Equal(kinds(r), []string{"orphaned-sidecar"}) || r.Findings[0].Repaired || r.Findings[0].Note == "" {
		t.Errorf("found:%s", show(r))
	}
	ok(t, os.WriteFile(at("big"), content, 0o644)) // now it has come
	v := b.open()
	if got := readAll(t, lookup(t, v.Root(), "big")); len(got) != 300*crypto.BlockSize {
		t.Errorf("%d bytes", len(got))
	}
	b.close(v)
	ok(t, os.Remove(at("big")))
	if r := b.mustFsck(FsckOptions{Repair: true, Grace: time.Nanosecond}); r.Errors > 0 || len(r.Findings) != 1 || !r.Findings[0].Repaired {
		t.Errorf("found:%s", show(r))
	}
	if exists(sidecar) {
		t.Error("the key is still there")
	}
}
