package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

var readdirEntries = flag.Int("readdir.entries", 100_000, "entries of the directory that changes while it is read")

func TestEntriesThatStayAreListedExactlyOnceWhileOthersComeAndGo(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("root runs this; nothing in it depends on the user")
	}
	d := newDaemon(t)
	d.start()
	dir := filepath.Join(d.Dir, "large")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Names of symlinks are quickly made, and listed like all others.
	const workers = 4
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for w := range workers {
		wg.Go(func() {
			for i := w; i < *readdirEntries; i += workers {
				if err := os.Symlink("x", filepath.Join(dir, fmt.Sprint("stays ", i))); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}

	stop := make(chan struct{})
	var changes atomic.Int64
	for w := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for {
				select {
				case <-stop:
					return
				default:
				}
				name := filepath.Join(dir, fmt.Sprintf("comes and goes %d %d", w, rng.IntN(1000)))
				err := unix.Unlink(name)
				if err == unix.ENOENT {
					err = unix.Symlink("y", name)
				}
				if err != nil {
					failed.Store(&err)
					return
				}
				changes.Add(1)
			}
		})
	}
	for pass := range 2 {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		buf := make([]byte, []int{32 << 10, 4 << 10}[pass])
		for {
			list := entries(t, fd, buf)
			if len(list) == 0 {
				break
			}
			for _, e := range list {
				seen[e.name]++
			}
		}
		unix.Close(fd)
		missing, twice, n := 0, 0, 0
		for name, times := range seen {
			if strings.HasPrefix(name, "stays ") {
				n++
				if times > 1 {
					twice++
				}
			}
		}
		missing = *readdirEntries - n
		if missing != 0 || twice != 0 || seen["."] != 1 || seen[".."] != 1 {
			t.Errorf("pass %d: %d of %d entries missing, %d seen twice; . %d times, .. %d times",
				pass, missing, *readdirEntries, twice, seen["."], seen[".."])
		}
	}
	close(stop)
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Error(*err)
	}
	t.Logf("%d entries created or unlinked in between", changes.Load())
	if changes.Load() < 1000 {
		t.Error("hardly anything changed")
	}
	d.stop()
}

func TestAPositionInADirectoryLeadsToTheSameEntryAgain(t *testing.T) {
	t.Parallel()
	asRootAndAsUser(t, ways[:1], func(t *testing.T, d *daemon) {
		for i := range 3000 {
			if err := os.Symlink("x", filepath.Join(d.Dir, fmt.Sprint("entry ", i))); err != nil {
				t.Fatal(err)
			}
		}
		fd, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var all []entry
		buf := make([]byte, 8192)
		for {
			list := entries(t, fd, buf)
			if len(list) == 0 {
				break
			}
			all = append(all, list...)
		}
		if len(all) != 3002 {
			t.Fatalf("%d entries", len(all))
		}
		removed := make(map[string]bool)
		check := func() {
			t.Helper()
			for range 500 {
				i := rand.IntN(len(all) - 1)
				if _, err := unix.Seek(fd, all[i].next, unix.SEEK_SET); err != nil {
					t.Fatal(err)
				}
				// What was removed since the directory was opened may still be shown.
				list := entries(t, fd, buf)
				next := i + 1
				for next < len(all) && removed[all[next].name] && (len(list) == 0 || list[0].name != all[next].name) {
					next++
				}
				if next == len(all) {
					if len(list) != 0 {
						t.Fatalf("after %q: %q, want the end", all[i].name, list[0].name)
					}
				} else if len(list) == 0 || list[0].name != all[next].name {
					t.Fatalf("after %q: %d entries, first %v, want %q", all[i].name, len(list), list[:min(1, len(list))], all[next].name)
				}
			}
		}
		check()
		for i, e := range all {
			if i%3 == 0 && strings.HasPrefix(e.name, "entry") {
				removed[e.name] = true
				if err := unix.Unlink(filepath.Join(d.Dir, e.name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		check()
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		n := 0
		for list := entries(t, fd, buf); len(list) > 0; list = entries(t, fd, buf) {
			n += len(list)
		}
		if n != len(all)-len(removed) {
			t.Errorf("%d entries after going back to the beginning, want %d", n, len(all)-len(removed))
		}
	})
}

// Where programs look at what they list, names come with attributes again.
func TestEntriesThatAreLookedAtAreListedExactlyOnce(t *testing.T) {
	t.Parallel()
	needFuse(t)
	d := newDaemon(t)
	d.start()
	const n = 6000 // more than come with attributes at first
	for i := range n {
		if err := os.Symlink("x", filepath.Join(d.Dir, fmt.Sprint("entry ", i))); err != nil {
			t.Fatal(err)
		}
	}
	lost := 0
	for _, size := range []int{500, 4 << 10, 32 << 10} {
		d.remount() // or the kernel has the whole list
		fd, err := unix.Open(d.Dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]int)
		buf := make([]byte, size)
		for calls := 0; ; calls++ {
			list := entries(t, fd, buf)
			if len(list) == 0 {
				break
			}
			for i, e := range list {
				if seen[e.name]++; seen[e.name] > 1 {
					t.Errorf("%d bytes at a time: %q is listed twice", size, e.name)
				}
				if calls%4 == 3 && i == 0 {
					_, _ = os.Lstat(filepath.Join(d.Dir, e.name))
				}
			}
		}
		unix.Close(fd)
		t.Logf("%d bytes at a time: %d of %d entries", size, len(seen), n+2)
		lost += n + 2 - len(seen)
	}
	d.stop()
	if lost != 0 {
		t.Errorf("%d entries are lost where a program reads fewer than the kernel asked for", lost)
	}
}
