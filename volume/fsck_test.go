package volume

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestFsckFindsNothingInACleanVolume(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		b := newBench(t, mode)
		v := b.open()
		furnish(t, v.Root())
		before := contents(t, v)
		b.close(v)
		calls := b.kms.count("Decrypt")
		r := b.mustFsck(FsckOptions{})
		if len(r.Findings) != 0 || !r.Complete || !r.Whole {
			t.Errorf("%s: complete %v, whole %v, findings:%s", mode, r.Complete, r.Whole, show(r))
		}
		// Two names of one file are one file.
		if r.Files != 9 || r.Sidecars != 9 || r.Directories != 3 || r.Symlinks != 2 || r.Others != 1 {
			t.Errorf("%s: %+v", mode, *r)
		}
		want := 1
		if mode == ModeFile {
			want += r.Files
		}
		if got := b.kms.count("Decrypt") - calls; got != want {
			t.Errorf("%s: %d calls to the KMS for %d files, want %d", mode, got, r.Files, want)
		}
		if r := b.mustFsck(FsckOptions{Repair: true}); len(r.Findings) != 0 {
			t.Errorf("%s: a repair finds:%s", mode, show(r))
		}
		if got := differ(before, contents(t, b.open())); len(got) != 0 {
			t.Errorf("%s: a repair of a clean volume changed %q", mode, got)
		}
	}
}

func TestFsckFindsAndRepairs(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		for _, c := range damageCases {
			if mode == ModeVolume && !strings.Contains(c.name, "sidecar") && !strings.Contains(c.name, "copy") {
				continue
			}
			t.Run(string(mode)+"/"+c.name, func(t *testing.T) { c.run(t, newBench(t, mode)) })
		}
	}
}

func (c *damageCase) run(t *testing.T, b *bench) {
	intact, at := b.furnished()
	c.do(t, b, at)

	checked := b.mustFsck(FsckOptions{})
	if got := kinds(checked); !slices.Equal(got, c.found) {
		t.Fatalf("found %q, want %q:%s", got, c.found, show(checked))
	}
	for _, f := range checked.Findings {
		if f.Repaired && f.Kind != FindingLeftover {
			t.Errorf("a check repaired: %s", f.String())
		}
		if f.Backing == "" || f.Problem == "" {
			t.Errorf("a finding says too little: %+v", f)
		}
	}
	// A check changes nothing, so what can be read now must be readable after.
	v := b.open()
	readable := contents(t, v)
	b.close(v)

	repaired := b.mustFsck(FsckOptions{Repair: true})
	for _, f := range repaired.Findings {
		if f.Note == "" {
			t.Errorf("nothing says what the repair made of: %s", f.String())
		}
	}
	if (repaired.Remaining > 0) != c.stays {
		t.Errorf("%d errors remain:%s", repaired.Remaining, show(repaired))
	}
	again := b.mustFsck(FsckOptions{Repair: true})
	if again.Remaining != repaired.Remaining {
		t.Errorf("the second repair: %d errors, %d remain:%s", again.Errors, again.Remaining, show(again))
	}
	c.wantSettled(t, again)
	c.wantNothingLost(t, b, intact, readable)
}

// wantSettled looks at what a repair finds after a repair.
func (c *damageCase) wantSettled(t *testing.T, again *FsckReport) {
	t.Helper()
	if c.stays {
		if again.Remaining == 0 || again.Errors != again.Remaining {
			t.Errorf("the second repair: %d errors, %d remain:%s", again.Errors, again.Remaining, show(again))
		}
	} else if (len(again.Findings) > 0) != c.keeps || again.Errors > 0 {
		t.Errorf("the second repair finds:%s", show(again))
	}
}

// wantNothingLost compares what can be read after a repair with what there was
// before the damage, and what could be read before the repair.
func (c *damageCase) wantNothingLost(t *testing.T, b *bench, intact, readable map[string]string) {
	t.Helper()
	v := b.open()
	after := contents(t, v)
	b.close(v)
	if got := unhashed(differ(intact, after)); !slices.Equal(got, unhashed(c.changed)) {
		t.Errorf("changed: %q, want %q", got, c.changed)
	}
	wantKept(t, readable, after)
}

func TestFsckRefusesAVolumeThatIsMountedForWriting(t *testing.T) {
	b := newBench(t, ModeVolume)
	b.open()
	for _, repair := range []bool{false, true} {
		if _, err := b.fsck(FsckOptions{Repair: repair}); !errors.Is(err, ErrInUse) {
			t.Errorf("repair %v: %v", repair, err)
		}
	}
}

func TestACopyWithoutItsEmptyDirectoriesIsReadAndCheckedWithoutAWrite(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	createFile(t, v.Root(), "file", pattern(5000, 1))
	if _, _, err := v.Root().Symlink("long", strings.Repeat("t", 4000), Owner{}); err != nil {
		t.Fatal(err)
	}
	b.close(v)
	for _, name := range []string{"links", "redo", sessionsDir, "lost+found"} { // links is not empty: its target is lost
		if err := os.RemoveAll(filepath.Join(b.dir, metaDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := b.mustFsck(FsckOptions{})
	if len(r.Findings) != 1 || r.Findings[0].Path != "long" || !r.Complete {
		t.Errorf("complete %v, findings:%s", r.Complete, show(r))
	}
	v = b.open(func(o *Options) { o.ReadOnly = true })
	if got := readAll(t, lookup(t, v.Root(), "file")); !bytes.Equal(got, pattern(5000, 1)) {
		t.Errorf("read %d bytes", len(got))
	}
	if target, err := lookup(t, v.Root(), "long").Readlink(); err == nil {
		t.Errorf("the target is %d bytes", len(target))
	}
	b.close(v)
	for _, name := range []string{"links", "redo"} {
		if _, err := os.Lstat(filepath.Join(b.dir, metaDir, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}
