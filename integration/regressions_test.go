package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// Bugs by which other encrypted file systems lost data, where they are about
// FUSE and no other test is about them. docs/REGRESSIONS.md has the whole list.

func TestOpensThatTruncateRacingAWriterLeaveAWholeFile(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			for j := range 60 {
				if _, err := w.WriteAt(bytes.Repeat([]byte{'w'}, 20_000), int64(i*j*100)); err != nil {
					t.Errorf("write: %v", err)
				}
				if err := w.Sync(); err != nil {
					t.Errorf("fsync: %v", err)
				}
			}
		})
		all.Go(func() {
			for range 60 {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
				if err != nil {
					t.Errorf("open with O_TRUNC: %v", err)
					return
				}
				if err := f.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}
		})
		all.Go(func() {
			for range 60 {
				b, err := os.ReadFile(path)
				if err != nil || len(bytes.Trim(b, "w\x00")) != 0 {
					t.Errorf("read %d bytes that nobody wrote, or %v", len(b), err)
				}
			}
		})
	}
	all.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m.unmount()
	m.mount()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after mounting again %d bytes, %v; before %d", len(got), err, len(want))
	}
}

func TestSynchronousWritesToAnUnlinkedFileWork(t *testing.T) {
	for _, flag := range []int{unix.O_SYNC, unix.O_DSYNC} {
		m := newVolume(t, volume.ModeFile)
		m.mount()
		path := filepath.Join(m.Dir, "file")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|flag, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if _, err := f.Write(bytes.Repeat([]byte{byte('a' + i)}, 3000)); err != nil {
				t.Fatalf("flag %o: write %d: %v", flag, i, err)
			}
		}
		m.evict(f)
		b := make([]byte, 20_000)
		if n, _ := f.ReadAt(b, 0); n != 15_000 || b[0] != 'a' || b[14_999] != 'e' {
			t.Errorf("flag %o: read %d bytes", flag, n)
		}
		f.Close()
		m.unmount()
	}
}

func TestUsersAtTheSameTimeMakeFilesOfTheirOwn(t *testing.T) {
	m := openToAll(t)
	if err := os.Chmod(m.Dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	const users, files = 6, 25
	var all sync.WaitGroup
	for u := range users {
		all.Go(func() {
			script := fmt.Sprintf("umask 077; cd %s && for i in $(seq %d); do echo secret %d > f%d.$i && mkdir d%d.$i && cat f%d.$i >/dev/null || exit 1; done", m.Dir, files, u, u, u, u)
			if err := as(t, uint32(2000+u), uint32(3000+u), nil, script); err != nil {
				t.Errorf("user %d: %v", 2000+u, err)
			}
		})
	}
	all.Wait()
	for u := range users {
		for i := 1; i <= files; i++ {
			for _, kind := range "fd" {
				st := stat(t, filepath.Join(m.Dir, fmt.Sprintf("%c%d.%d", kind, u, i)))
				if st.Uid != uint32(2000+u) || st.Gid != uint32(3000+u) || st.Mode&0o077 != 0 {
					t.Errorf("%c%d.%d belongs to %d:%d, mode %o", kind, u, i, st.Uid, st.Gid, st.Mode)
				}
			}
		}
	}
	// What another can read does not depend on who asked just before him.
	for u := range users {
		if as(t, uint32(2000+u), uint32(3000+u), nil, fmt.Sprintf("cat %s/f%d.1 2>/dev/null", m.Dir, (u+1)%users)) == nil {
			t.Errorf("user %d read a file of the next", 2000+u)
		}
	}
}

func TestALinkShowsTheSizeOfWhatWasJustWritten(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path, link := filepath.Join(m.Dir, "file"), filepath.Join(m.Dir, "link")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for i := range 6 { // with pages still in the kernel, and after
		n, err := f.Write(bytes.Repeat([]byte{'x'}, 3333))
		if err != nil {
			t.Fatal(err)
		}
		size += int64(n)
		if i == 3 {
			m.evict(f)
		}
		if err := os.Link(path, link); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, link} {
			if st := stat(t, p); st.Size != size || st.Nlink != 2 {
				t.Errorf("write %d: %s has %d bytes and %d links, want %d and 2", i, filepath.Base(p), st.Size, st.Nlink, size)
			}
		}
		if b, err := os.ReadFile(link); err != nil || int64(len(b)) != size {
			t.Errorf("write %d: %d bytes read through the link, %v", i, len(b), err)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
	}
}
