package integration

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

func TestReadersWritersAndTruncatersOfOneFileOnAMount(t *testing.T) {
	for name, edit := range map[string]func(*fs.Options){
		"writeback":    func(*fs.Options) {},
		"no writeback": func(o *fs.Options) { o.NoWriteback = true },
	} {
		t.Run(name, func(t *testing.T) {
			m := newVolume(t, volume.ModeFile)
			m.mount(edit)
			path := filepath.Join(m.Dir, "file")
			const size = 200_000
			if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(i), 7))
					f, err := os.OpenFile(path, os.O_RDWR, 0)
					if err != nil {
						t.Error(err)
						return
					}
					defer f.Close()
					for j := range 120 {
						off := int64(rng.IntN(size))
						switch rng.IntN(5) {
						case 0:
							err = f.Truncate(off)
						case 1:
							buf := make([]byte, rng.IntN(30000))
							if _, err = f.ReadAt(buf, off); err == io.EOF {
								err = nil
							}
						case 2:
							err = f.Sync()
						default:
							_, err = f.WriteAt(bytes.Repeat([]byte{byte(j)}, 1+rng.IntN(30000)), off)
						}
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			m.unmount()
			m.mount(edit)
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("after remounting: %d bytes, %v, that differ from the %d before", len(got), err, len(want))
			}
		})
	}
}

func TestAnUnlinkedFileIsUsableWhileItIsOpen(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	for _, how := range []string{"unlinked", "renamed over"} {
		path := filepath.Join(m.Dir, "file")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if how == "unlinked" {
			err = os.Remove(path)
		} else {
			other := filepath.Join(m.Dir, "other")
			if err := os.WriteFile(other, []byte("other"), 0o644); err != nil {
				t.Fatal(err)
			}
			err = os.Rename(other, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("content"), 5000)
		if _, err := f.Write(want); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Errorf("%s: fsync: %v", how, err)
		}
		if err := f.Truncate(30000); err != nil {
			t.Errorf("%s: truncate: %v", how, err)
		}
		for _, err := range []error{
			f.Chmod(0o604), f.Chown(os.Geteuid(), os.Getegid()), unix.Futimes(int(f.Fd()), []unix.Timeval{{Sec: 1}, {Sec: 2}}),
		} {
			if err != nil {
				t.Errorf("%s: chmod, chown or utimes: %v", how, err)
			}
		}
		// Without the kernel's pages the data must come from the volume.
		m.evict(f)
		got := make([]byte, 40000)
		if n, _ := f.ReadAt(got, 0); n != 30000 || !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("%s: read %d bytes that differ", how, n)
		}
		// The birth time is never cached: with it the kernel asks for all anew.
		var st unix.Statx_t
		err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
		if err != nil || st.Size != 30000 || st.Mode != unix.S_IFREG|0o604 || st.Nlink != 0 || st.Mtime.Sec != 2 {
			t.Errorf("%s: statx: %+v, %v", how, st, err)
		}
	}
}

// evict makes the kernel drop a file's clean pages.
func (m *mounted) evict(f *os.File) {
	m.t.Helper()
	if err := f.Sync(); err != nil {
		m.t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		m.t.Fatal(err)
	}
}

func TestOpenFlagsWorkWithoutOpenRequests(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	write := func(flags int, s string) {
		t.Helper()
		f, err := os.OpenFile(path, flags, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(f, s); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	want := func(s string) {
		t.Helper()
		m.unmount()
		m.mount()
		if got, err := os.ReadFile(path); err != nil || string(got) != s {
			t.Fatalf("read %q, %v, want %q", got, err, s)
		}
	}
	write(os.O_CREATE|os.O_EXCL|os.O_WRONLY, "0123456789")
	want("0123456789")
	write(os.O_WRONLY, "abc")
	want("abc3456789")
	write(os.O_WRONLY|os.O_APPEND, "xyz")
	want("abc3456789xyz")
	write(os.O_RDWR|os.O_APPEND, "!")
	want("abc3456789xyz!")
	write(os.O_WRONLY|os.O_TRUNC, "new")
	want("new")
	if _, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); !os.IsExist(err) {
		t.Errorf("O_EXCL on an existing file: %v", err)
	}
	if _, err := os.OpenFile(path+"/x", os.O_RDONLY, 0); err == nil {
		t.Error("a file was opened as a directory")
	}
}
