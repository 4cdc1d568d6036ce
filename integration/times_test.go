package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

func TestTheBirthTimeIsShown(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	before := time.Now().Add(-time.Second)
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		t.Fatal(err)
	}
	btime := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	if st.Mask&unix.STATX_BTIME == 0 || btime.Before(before) || btime.After(time.Now().Add(time.Second)) {
		t.Errorf("mask %#x, birth time %v", st.Mask, btime)
	}
	if st.Mtime.Sec != 1 {
		t.Errorf("mtime %v", st.Mtime)
	}
}

func TestModificationTimesMoveOnlyByWhatUsersDo(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.Dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := time.Unix(1_000_000_000, 123456789)
	check := func(what string) {
		t.Helper()
		for range 2 {
			st, err := os.Stat(path)
			if err != nil || !st.ModTime().Equal(want) {
				t.Fatalf("after %s: mtime %v, %v, want %v", what, st.ModTime(), err, want)
			}
			m.unmount()
			m.mount()
		}
	}
	if err := os.Chtimes(path, want, want); err != nil {
		t.Fatal(err)
	}
	check("utimensat")
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	check("a read")
	moved := filepath.Join(m.Dir, "dir", "moved")
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	path = moved
	check("a rename")
	if err := os.Link(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	check("a link")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	check("chmod")
	before := time.Now().Add(-time.Second)
	if err := os.WriteFile(path, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.ModTime().Before(before) {
		t.Fatalf("after a write: mtime %v, %v", st.ModTime(), err)
	}
	want = st.ModTime()
	check("a write")
}

// times are the three that a file shows.
type times struct{ atime, mtime, ctime unix.Timespec }

func timesOf(t *testing.T, path string) times {
	t.Helper()
	st := stat(t, path)
	return times{st.Atim, st.Mtim, st.Ctim}
}

func TestTimesAreKeptToTheNanosecond(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	plain := t.TempDir()
	make := func(dir, kind string) string {
		t.Helper()
		path := filepath.Join(dir, kind)
		var err error
		switch kind {
		case "file":
			err = os.WriteFile(path, []byte("content"), 0o644)
		case "dir":
			err = os.Mkdir(path, 0o755)
		case "link":
			err = os.Symlink("target", path)
		case "fifo":
			err = unix.Mkfifo(path, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, kind := range []string{"file", "dir", "link", "fifo"} {
		mine, local := make(m.Dir, kind), make(plain, kind)
		for _, ts := range []unix.Timespec{
			{Sec: 1, Nsec: 999_999_999}, {Sec: -1, Nsec: 1}, {Sec: 1<<31 - 1, Nsec: 999_999_999}, {Sec: 1 << 32, Nsec: 123_456_789}, {},
		} {
			other := unix.Timespec{Sec: ts.Sec + 12, Nsec: 7}
			for _, path := range []string{mine, local} {
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, other}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				got, want := timesOf(t, mine), timesOf(t, local)
				if got.atime != want.atime || got.mtime != want.mtime {
					t.Errorf("%s: %v, set to %v, %v; a local file system shows %v", kind, got, ts, other, want)
				}
				m.unmount()
				m.mount()
			}
		}
		// One of them alone, and now.
		before := timesOf(t, mine)
		omit, now := unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Nsec: unix.UTIME_NOW}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, mine, []unix.Timespec{now, omit}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
		if after := timesOf(t, mine); after.mtime != before.mtime || after.atime.Sec < 1_600_000_000 {
			t.Errorf("%s: %v after setting atime to now, before %v", kind, after, before)
		}
	}
}

func TestAccessTimesAreThoseOfTheBackingStore(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	ino := stat(t, path).Ino
	old := time.Unix(1_000_000_000, 5)
	if err := os.Chtimes(path, old, time.Unix(1_500_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	m.mount()
	read := func() {
		t.Helper()
		if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	// What the backing file shows, found by its number.
	backing := func() unix.Timespec {
		t.Helper()
		entries, err := os.ReadDir(m.Backing)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if st := stat(t, filepath.Join(m.Backing, e.Name())); st.Ino == ino {
				return st.Atim
			}
		}
		t.Fatal("no backing file")
		panic("unreachable")
	}
	if got := timesOf(t, path).atime; got != unix.NsecToTimespec(old.UnixNano()) {
		t.Errorf("a mount and a stat moved atime to %v", got)
	}
	read()
	first := backing()
	m.unmount()
	m.mount()
	if got := timesOf(t, path).atime; got != first {
		t.Errorf("atime %v, the backing file's is %v", got, first)
	}
	t.Logf("reading moved the backing file's atime from %v to %v", old, first)
}

func TestChangeTimesMoveByChangesAlone(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	for _, kind := range []string{"file", "dir"} {
		path := filepath.Join(m.Dir, kind)
		if kind == "file" {
			if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if err := os.MkdirAll(filepath.Join(path, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		m.unmount() // the kernel shows when it was written to, from now on when that reached the store
		m.mount()
		for _, c := range []struct {
			what         string
			call         func() error
			ctime, mtime bool // move
		}{
			{"stat", func() error { _, err := os.Stat(path); return err }, false, false},
			{"another mount", func() error { m.unmount(); m.mount(); return nil }, false, false},
			{"read", func() error {
				if kind == "dir" {
					_, err := os.ReadDir(path)
					return err
				}
				_, err := os.ReadFile(path)
				return err
			}, false, false},
			{"fsync", func() error {
				f, err := os.Open(path)
				if err != nil {
					return err
				}
				defer f.Close()
				return f.Sync()
			}, false, false},
			{"list of attributes", func() error { _, err := unix.Listxattr(path, nil); return err }, false, false},
			{"chmod", func() error { return os.Chmod(path, 0o700) }, true, false},
			{"chown", func() error { return os.Chown(path, os.Geteuid(), os.Getegid()) }, true, false},
			{"utimes", func() error { return os.Chtimes(path, time.Unix(1, 2), time.Unix(3, 4)) }, true, true},
			{"rename", func() error {
				err := os.Rename(path, path+"2")
				path += "2"
				return err
			}, true, false},
			{"rename into another directory", func() error {
				if err := os.MkdirAll(filepath.Join(m.Dir, "parent"), 0o755); err != nil {
					return err
				}
				to := filepath.Join(m.Dir, "parent", kind)
				err := os.Rename(path, to)
				path = to
				return err
			}, true, false},
			{"what happens further down", func() error {
				if kind == "file" {
					return nil
				}
				return os.WriteFile(filepath.Join(path, "sub", "new"), []byte("x"), 0o644)
			}, false, false},
			{"a new entry, or a write", func() error {
				if kind == "dir" {
					return os.WriteFile(filepath.Join(path, "new"), nil, 0o644)
				}
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				if _, err = f.WriteString("more"); err == nil {
					err = f.Sync()
				}
				return err
			}, true, true},
		} {
			before := timesOf(t, path)
			time.Sleep(15 * time.Millisecond) // more than a tick of the kernel's clock for times
			if err := c.call(); err != nil {
				t.Fatalf("%s: %s: %v", kind, c.what, err)
			}
			for _, when := range []string{"", ", and another mount"} {
				after := timesOf(t, path)
				if moved := after.ctime != before.ctime; moved != c.ctime {
					t.Errorf("%s: %s%s: ctime moved is %v, want %v: %v, %v", kind, c.what, when, moved, c.ctime, before, after)
				}
				if moved := after.mtime != before.mtime; moved != c.mtime {
					t.Errorf("%s: %s%s: mtime moved is %v, want %v: %v, %v", kind, c.what, when, moved, c.mtime, before, after)
				}
				m.unmount()
				m.mount()
			}
		}
	}
}
