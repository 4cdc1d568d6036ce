package volume

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// host opens the volume as one of several hosts does, each of which remembers its own.
func (b *bench) host(name string, edit ...func(*Options)) *Volume {
	b.t.Helper()
	return b.open(append([]func(*Options){func(o *Options) {
		o.Shared, o.Mountpoint, o.StateDir = true, "/mnt/"+name, filepath.Join(b.state, name)
	}}, edit...)...)
}

// sharedPair is a volume that two hosts have open.
func sharedPair(t testing.TB) (b *bench, one, two *Volume) {
	b = newBench(t, ModeVolume)
	return b, b.host("one"), b.host("two")
}

// find is the node of a name on a host; the test ends without it.
func find(t testing.TB, v *Volume, name string) *Node {
	t.Helper()
	n, _, err := v.Root().Lookup(name)
	if err != nil {
		t.Fatalf("lookup %q: %v", name, err)
	}
	return n
}

func TestSharedMountsSeeWhatOthersWrote(t *testing.T) {
	_, one, two := sharedPair(t)
	n := createFile(t, one.Root(), "file", bytes.Repeat([]byte("one"), 5000))
	m := find(t, two, "file")
	if got := readAll(t, m); !bytes.Equal(got, bytes.Repeat([]byte("one"), 5000)) {
		t.Fatal("two does not see what one wrote")
	}
	writeAll(t, m, []byte("two"), 4095)
	want := bytes.Repeat([]byte("one"), 5000)
	copy(want[4095:], "two")
	if got := readAll(t, n); !bytes.Equal(got, want) {
		t.Fatal("one does not see what two wrote")
	}
	for _, size := range []int64{20000, 100, 0, 5000} {
		if err := n.Truncate(context.Background(), size); err != nil {
			t.Fatal(err)
		}
		if a, err := m.Attr(); err != nil || a.Size != uint64(size) {
			t.Fatalf("cut to %d: %d, %v", size, a.Size, err)
		}
		want = append(want, make([]byte, 20000)...)[:size]
		if got := readAll(t, m); !bytes.Equal(got, want) {
			t.Fatalf("cut to %d: other content", size)
		}
	}
}

func TestSharedWritesToPartsOfOneBlockLoseNothing(t *testing.T) {
	_, one, two := sharedPair(t)
	n := createFile(t, one.Root(), "file", make([]byte, 3*4096+77))
	m := find(t, two, "file")
	var hosts sync.WaitGroup
	for i, at := range []*Node{n, m} {
		hosts.Go(func() {
			for k := range 300 {
				off := int64(k*41 + i*20)
				if off+20 > 3*4096 {
					break
				}
				if _, err := at.WriteAt(context.Background(), bytes.Repeat([]byte{byte(k), byte(i + 1)}, 10), off); err != nil {
					t.Errorf("host %d at %d: %v", i, off, err)
					return
				}
			}
		})
	}
	hosts.Wait()
	for _, at := range []*Node{n, m} {
		got := readAll(t, at)
		for k := range 299 {
			for i := range 2 {
				off := k*41 + i*20
				if off+20 <= 3*4096 && !bytes.Equal(got[off:off+20], bytes.Repeat([]byte{byte(k), byte(i + 1)}, 10)) {
					t.Fatalf("write %d of host %d is lost", k, i)
				}
			}
		}
	}
}

func TestSharedAppendsFollowEachOther(t *testing.T) {
	_, one, two := sharedPair(t)
	n := createFile(t, one.Root(), "log", nil)
	m := find(t, two, "log")
	var hosts sync.WaitGroup
	for i, at := range []*Node{n, n, m, m} {
		hosts.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 100 {
				if _, err := at.Append(context.Background(), append(bytes.Repeat([]byte{byte('a' + i)}, 1+r.IntN(300)), '\n')); err != nil {
					t.Errorf("append: %v", err)
				}
			}
		})
	}
	hosts.Wait()
	got := readAll(t, m)
	lines := bytes.Split(bytes.TrimSuffix(got, []byte("\n")), []byte("\n"))
	if len(lines) != 400 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		if len(bytes.Trim(l, string(l[:1]))) != 0 {
			t.Fatalf("a line of two: %q", l)
		}
	}
	if !bytes.Equal(readAll(t, n), got) {
		t.Error("the hosts see different files")
	}
}

func TestSharedMountsKeepOthersOutAndAreKeptOut(t *testing.T) {
	b := newBench(t, ModeVolume)
	one := b.host("one")
	for _, readOnly := range []bool{false, true} {
		if v, err := b.tryOpen(func(o *Options) { o.ReadOnly = readOnly }); !errors.Is(err, ErrInUse) {
			t.Errorf("a mount that is not shared, read-only %v: %v", readOnly, err)
			if err == nil {
				v.Close()
			}
		}
	}
	two := b.host("two")
	if info, err := ReadInfo(b.dir); err != nil || len(info.Sessions) != 2 || !info.Sessions[0].Shared {
		t.Errorf("sessions: %+v, %v", info.Sessions, err)
	}
	b.close(one)
	if _, err := b.tryOpen(); !errors.Is(err, ErrInUse) {
		t.Errorf("while one of two is left: %v", err)
	}
	b.close(two)
	alone := b.open()
	if v, err := b.tryOpen(func(o *Options) { o.Shared = true }); !errors.Is(err, ErrInUse) {
		t.Errorf("a shared mount beside one that is not: %v", err)
		if err == nil {
			v.Close()
		}
	}
	b.close(alone)
	for _, o := range []func(*Options){func(o *Options) { o.ReadOnly = true }, func(o *Options) { o.Strict = true }} {
		if _, err := b.tryOpen(func(o *Options) { o.Shared = true }, o); err == nil {
			t.Error("a shared mount that is read-only or strict")
		}
	}
}

func TestNamesChangeUnderTheEyesOfOthers(t *testing.T) {
	_, one, two := sharedPair(t)
	a, b := one.Root(), two.Root()
	createFile(t, a, "file", []byte("content"))
	m := find(t, two, "file")
	release, err := m.Hold()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Rename("file", a, "other", 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Lookup("file"); err != unix.ENOENT {
		t.Errorf("the old name: %v", err)
	}
	if got := readAll(t, find(t, two, "other")); string(got) != "content" {
		t.Errorf("%q", got)
	}
	if err := a.Unlink("other"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Lookup("other"); err != unix.ENOENT {
		t.Errorf("removed: %v", err)
	}
	writeAll(t, m, []byte("still"), 0)
	if got := readAll(t, m); string(got) != "stillnt" {
		t.Errorf("a file that is open, and was removed elsewhere: %q", got)
	}
	release()
	d, _, err := a.Mkdir("dir", 0o755, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	e := find(t, two, "dir")
	createFile(t, e, "in", []byte("x"))
	if err := a.Rename("dir", a, "moved", 0); err != nil {
		t.Fatal(err)
	}
	e = find(t, two, "moved")
	if _, _, err := e.Lookup("in"); err != nil {
		t.Errorf("in a directory that was renamed: %v", err)
	}
	if err := b.Rmdir("moved"); err != unix.ENOTEMPTY {
		t.Errorf("rmdir: %v", err)
	}
	if err := d.Unlink("in"); err != nil {
		t.Errorf("unlink in what was renamed elsewhere: %v", err)
	}
	if err := b.Rmdir("moved"); err != nil {
		t.Errorf("rmdir: %v", err)
	}
	if _, _, err := d.Create("late", 0o644, Owner{}); err != unix.ENOENT {
		t.Errorf("create in a directory that was removed elsewhere: %v", err)
	}
}

func TestFilesOfSharedMountsHaveNoRootUntilFsckGivesThemOne(t *testing.T) {
	b := newBench(t, ModeVolume)
	alone := b.open()
	createFile(t, alone.Root(), "sealed", pattern(9000, 1))
	createFile(t, alone.Root(), "untouched", pattern(9000, 1))
	b.close(alone)
	one := b.host("one")
	createFile(t, one.Root(), "new", pattern(9000, 2))
	writeAll(t, find(t, one, "sealed"), []byte("x"), 5000)
	if err := one.Root().Rename("untouched", one.Root(), "renamed", 0); err != nil {
		t.Fatal(err)
	}
	b.close(one)
	flags := func(v *Volume, name string) uint8 {
		f := must(find(t, v, name).openFile(false))(t)
		defer f.release()
		return f.rec.Flags
	}
	want := func(when string, all map[string]uint8) {
		t.Helper()
		v := b.open()
		defer b.close(v)
		for name, w := range all {
			if got := flags(v, name); got != w {
				t.Errorf("%s: %s has flags %d, want %d", when, name, got, w)
			}
			checkSeal(t, find(t, v, name))
		}
	}
	const both = crypto.FlagShared | crypto.FlagRootAbsent
	want("written", map[string]uint8{"sealed": both, "new": both, "renamed": 0})
	r, err := Fsck(context.Background(), b.dir, b.options(), FsckOptions{Repair: true})
	if err != nil || r.Errors != 0 {
		t.Fatalf("fsck: %+v, %v", r, err)
	}
	want("repaired", map[string]uint8{"sealed": 0, "new": 0, "renamed": 0})
}

func TestAKeyGoesWithTheLastHostThatHasItsFileOpen(t *testing.T) {
	b, one, two := sharedPair(t)
	for _, lastIsTheRemover := range []bool{true, false} {
		n := createFile(t, one.Root(), "file", pattern(9000, 1))
		m := find(t, two, "file")
		release := must(m.Hold())(t)
		f := must(n.openFile(false))(t)
		sidecar := filepath.Join(b.dir, sidecarPath(f.id))
		f.release()
		if err := one.Root().Unlink("file"); err != nil {
			t.Fatal(err)
		}
		flush := func() { one.reaper.flush(); two.reaper.flush() }
		first, last := func() { n.Forget() }, func() { release(); m.Forget() }
		if lastIsTheRemover {
			first, last = last, first
		}
		first()
		flush()
		if _, err := os.Stat(sidecar); err != nil {
			t.Fatalf("the key went although a host has the file open (the remover: %v): %v", lastIsTheRemover, err)
		}
		last()
		flush()
		if _, err := os.Stat(sidecar); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the key is there although nobody has the file open (the remover was last: %v): %v", lastIsTheRemover, err)
		}
	}
}

func TestWhatLooksLikeAChangeUnderWayIsMadeOnlyIfItIs(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, path string, now, later []byte)
		want   string // content afterwards; "" for an error
	}{
		{"as it was left", func(*testing.T, string, []byte, []byte) {}, "new"},
		{"a bit of its payload", func(t *testing.T, path string, now, _ []byte) {
			now[len(now)-slotHeader-10] ^= 1
			must(0, os.WriteFile(path, now, 0o600))(t)
		}, "old"},
		{"a bit of its header", func(t *testing.T, path string, now, _ []byte) {
			now[len(now)-slotHeader+56] ^= 1
			must(0, os.WriteFile(path, now, 0o600))(t)
		}, "old"},
		{"put behind a later state", func(t *testing.T, path string, now, later []byte) {
			must(0, os.WriteFile(path, append(append(later, make([]byte, len(now)-len(later))...)[:len(now)-slotHeader-8192], now[len(now)-slotHeader-8192:]...), 0o600))(t)
		}, "later"},
		{"a shorter file", func(t *testing.T, path string, _, _ []byte) {
			must(0, os.Truncate(path, strangeLength(200)))(t)
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			k := &tap{Backing: System{}, through: idle}
			one, two := b.host("one", withTap(k)), b.host("two")
			quietPool(one)
			old, next := pattern(9000, 1), pattern(9000, 1)
			copy(next[4000:], "a change")
			n := createFile(t, one.Root(), "file", old)
			path := b.backingFile(n)
			kill := &killer{b: b, death: death{at: 3, when: beforeChange}} // it stands at the end, and is not begun
			k.turn(kill.through)
			_, _ = n.WriteAt(context.Background(), []byte("a change"), 4000)
			if !kill.died {
				t.Fatal("it was not killed")
			}
			kill.bury(t, one)
			now := must(os.ReadFile(path))(t)
			// What the file is like once others have changed it.
			m := find(t, two, "file")
			readAll(t, m)
			writeAll(t, m, []byte("later"), 0)
			later := must(os.ReadFile(path))(t)
			must(0, os.WriteFile(path, now, 0o600))(t)
			c.damage(t, path, now, later)

			want := map[string][]byte{"old": old, "new": next, "later": append([]byte("later"), next[5:]...)}[c.want]
			got, err := tryReadAll(m)
			if (err == nil) != (want != nil) || want != nil && !bytes.Equal(got, want) {
				t.Errorf("read: %v, as it should be: %v", err, bytes.Equal(got, want))
			}
			if want == nil && !errors.Is(err, ErrIntegrity) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAFileThatWasRenamedElsewhereIsLoadedByItsNewName(t *testing.T) {
	_, one, two := sharedPair(t)
	createFile(t, one.Root(), "old", []byte("content"))
	m := find(t, two, "old")
	readAll(t, m)
	if err := one.Root().Rename("old", one.Root(), "new", 0); err != nil {
		t.Fatal(err)
	}
	if n := find(t, two, "new"); n != m {
		t.Fatal("one inode has two nodes")
	}
	m.Forget() // as if its descriptor had been needed elsewhere
	if got := readAll(t, m); string(got) != "content" {
		t.Errorf("%q", got)
	}
}
