package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// fullDisk is a store on which nothing that takes space succeeds while full.
type fullDisk struct {
	*faulty
	full bool
	fell int // Fallocate calls, but for redo slots
}

func (k *fullDisk) no(takes bool) error {
	if k.full && takes {
		return unix.ENOSPC
	}
	return nil
}

func (k *fullDisk) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if err := k.no(flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE); err != nil {
		return -1, err
	}
	return k.faulty.Openat(dirfd, name, flags, mode)
}

func (k *fullDisk) Mkdirat(dirfd int, name string, mode uint32) error {
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Mkdirat(dirfd, name, mode)
}

func (k *fullDisk) Symlinkat(target string, dirfd int, name string) error {
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Symlinkat(target, dirfd, name)
}

func (k *fullDisk) Fallocate(fd int, mode uint32, off, length int64) error {
	if of, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); !strings.Contains(of, metaDir+"/redo/") {
		k.fell++
	}
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Fallocate(fd, mode, off, length)
}

func TestAFullDiskLeavesAVolumeThatOpensAndCanBeEmptied(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	want := pattern(10000, 1)
	for _, name := range []string{"kept", "removed", strings.Repeat("long", 60)} {
		createFile(t, v.Root(), name, want)
	}
	if _, _, err := v.Root().Mkdir("dir", 0o755, Owner{}); err != nil {
		t.Fatal(err)
	}
	b.close(v)

	k := &fullDisk{faulty: newFaulty()}
	v = b.open(func(o *Options) { o.Backing = k })
	quietPool(v)
	for _, name := range []string{"kept", "removed"} { // their key is asked for once
		readAll(t, lookup(t, v.Root(), name))
	}
	writeAll(t, lookup(t, v.Root(), "kept"), want, 0) // with a redo slot, so that there is one
	k.full = true
	growing := func(b []byte, off int64) (int, error) {
		if off >= crypto.BlockOffset(2) {
			return 0, unix.ENOSPC
		}
		return len(b), nil
	}
	k.set(func() { k.pwrite = growing })
	for what, op := range map[string]func() error{
		"create":  func() error { _, _, err := v.Root().Create("new", 0o644, Owner{}); return err },
		"mkdir":   func() error { _, _, err := v.Root().Mkdir("newdir", 0o755, Owner{}); return err },
		"symlink": func() error { _, _, err := v.Root().Symlink("newlink", "target", Owner{}); return err },
		"long":    func() error { _, _, err := v.Root().Create(strings.Repeat("l", 250), 0o644, Owner{}); return err },
		"append": func() error {
			_, err := lookup(t, v.Root(), "kept").WriteAt(context.Background(), pattern(50000, 2), 10000)
			return err
		},
	} {
		if err := op(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", what, err)
		}
	}
	if got := readAll(t, lookup(t, v.Root(), "kept")); !bytes.Equal(got, want) {
		t.Error("what was there differs")
	}
	// What gives space back works.
	if err := v.Root().Unlink("removed"); err != nil {
		t.Error(err)
	}
	if err := v.Root().Rmdir("dir"); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if k.fell != 0 {
		t.Errorf("%d calls of fallocate: nothing is allocated ahead", k.fell)
	}
	// Where also the reserve helps nothing, nobody can begin to write to it, and that
	// harms nothing.
	if v, err := b.tryOpen(func(o *Options) { o.Backing = k }); err == nil {
		b.close(v)
		t.Error("a volume on a full disk opened for writing")
	} else if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("open on a full disk: %v", err)
	}
	v = b.open(func(o *Options) { o.Backing = k; o.ReadOnly = true })
	if got := readAll(t, lookup(t, v.Root(), "kept")); !bytes.Equal(got, want) {
		t.Error("what was there differs when read only")
	}
	b.close(v)
	k.full = false
	k.set(func() { k.pwrite = nil })
	v = b.open()
	names := list(t, v.Root())
	slices.Sort(names)
	if !slices.Equal(names, []string{"kept", strings.Repeat("long", 60)}) {
		t.Errorf("it holds %q", names)
	}
	for _, name := range names {
		if got := readAll(t, lookup(t, v.Root(), name)); !bytes.Equal(got, want) {
			t.Errorf("%q differs", name)
		}
	}
}
