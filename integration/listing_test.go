package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

// What fs/looking.go says.
const (
	lookAhead = 2500
	probed    = 8
)

// statxCounter counts how often the backing store is asked for attributes.
type statxCounter struct {
	volume.Backing
	n atomic.Int64
}

func (c *statxCounter) Statx(dirfd int, name string, st *unix.Statx_t) error {
	c.n.Add(1)
	return c.Backing.Statx(dirfd, name, st)
}

// largeDir mounts a volume with a directory of entries, of which the kernel knows
// nothing yet, and opens the directory.
func largeDir(t *testing.T, entries int) (m *mounted, dir string, fd int, statx *statxCounter) {
	t.Helper()
	statx = &statxCounter{Backing: volume.System{}}
	m = newVolume(t, volume.ModeVolume)
	m.fill("dir", entries)
	m.backing = statx
	m.mount()
	dir = filepath.Join(m.Dir, "dir")
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	// What is only done once for each directory is no part of what is counted.
	if err := unix.Access(filepath.Join(dir, "none"), unix.F_OK); err != unix.ENOENT {
		t.Fatal(err)
	}
	return m, dir, fd, statx
}

func lookAt(t *testing.T, path string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
}

// list reads an open directory to its end, a number of bytes at a time, and calls
// each with what every call gave. It fails unless there are so many entries.
func list(t *testing.T, fd, bytes, want int, each func(names []string)) {
	t.Helper()
	seen := make(map[string]bool)
	buf := make([]byte, bytes)
	for {
		all := entries(t, fd, buf)
		if len(all) == 0 {
			break
		}
		var names []string
		for _, e := range all {
			if seen[e.name] {
				t.Errorf("%q is listed twice", e.name)
			}
			if seen[e.name] = true; e.name != "." && e.name != ".." {
				names = append(names, e.name)
			}
		}
		each(names)
	}
	if len(seen) != want+2 || !seen["."] || !seen[".."] {
		t.Errorf("%d entries are listed, want %d, and . and ..", len(seen), want)
	}
}

// As find and git do.
func TestWhoListsADirectoryToItsEndNeedNotLookItsEntriesUp(t *testing.T) {
	const files = 1500
	m, dir, fd, _ := largeDir(t, files)
	got := m.requests(func() {
		var names []string
		list(t, fd, 32<<10, files, func(some []string) { names = append(names, some...) })
		for _, name := range names {
			lookAt(t, filepath.Join(dir, name))
		}
	})
	t.Log(got)
	if n := got["READDIRPLUS"]; n == 0 || len(got) != 1 {
		t.Errorf("listing, and then looking at all: %v, want READDIRPLUS alone", got)
	}
}

// As ls -f does.
func TestWhoWantsNamesPaysForFewAttributes(t *testing.T) {
	const files = 10_000
	m, dir, fd, statx := largeDir(t, files)
	before := statx.n.Load()
	var misses uint64
	got := m.requests(func() {
		list(t, fd, 32<<10, files, func([]string) {
			// Looking for what is not there is not looking at what is listed.
			if err := unix.Access(filepath.Join(dir, fmt.Sprint("none ", misses)), unix.F_OK); err != unix.ENOENT {
				t.Error(err)
			}
			misses++
		})
	})
	n := statx.n.Load() - before - int64(misses)
	t.Logf("%v, %d times attributes, %d names were not there", got, n, misses)
	if got["LOOKUP"] != misses || n != lookAhead {
		t.Errorf("listing %d names: %v, %d times attributes, want %d times", files, got, n, lookAhead)
	}

	// Names take no node, and nothing to be forgotten.
	m.Mount.DropAll()
	for end := time.Now().Add(patience); m.Mount.Counts().Snapshot()["FORGET"] < lookAhead; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the kernel forgot %d inodes, want %d", m.Mount.Counts().Snapshot()["FORGET"], lookAhead)
		}
	}
	m.settle()
	if n := m.Mount.Counts().Snapshot()["FORGET"]; n > lookAhead+1 { // the directory
		t.Errorf("the kernel forgot %d inodes, want %d", n, lookAhead)
	}
}

// As ls -l does.
func TestWhoLooksAtWhatItListsIsToldAhead(t *testing.T) {
	const files = 10_000
	// In every lookAhead+probed entries those of the probe are looked up.
	const want = files/(lookAhead+probed)*probed + max(0, files%(lookAhead+probed)-lookAhead)
	for _, bytes := range []int{32 << 10, 128 << 10} {
		m, dir, fd, statx := largeDir(t, files)
		before := statx.n.Load()
		got := m.requests(func() {
			list(t, fd, bytes, files, func(names []string) {
				for _, name := range names {
					lookAt(t, filepath.Join(dir, name))
				}
			})
		})
		n := statx.n.Load() - before
		t.Logf("%d bytes at a time: %v, %d times attributes", bytes, got, n)
		if got["LOOKUP"] != want || n != files {
			t.Errorf("%d bytes at a time: %v, %d times attributes, want %d LOOKUPs, %d times attributes", bytes, got, n, want, files)
		}
	}
}

func TestARewoundListingBeginsAnew(t *testing.T) {
	const files = 4000
	m, dir, fd, statx := largeDir(t, files)
	for pass := range 3 {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			t.Fatal(err)
		}
		before := statx.n.Load()
		got := m.requests(func() { list(t, fd, 32<<10, files+pass, func([]string) {}) })
		n := statx.n.Load() - before
		t.Logf("pass %d: %v, %d times attributes", pass, got, n)
		if got["LOOKUP"] != 0 || n != lookAhead {
			t.Errorf("pass %d: %v, %d times attributes, want %d times", pass, got, n, lookAhead)
		}
		// Or the kernel would list what it has kept.
		if err := os.Mkdir(filepath.Join(dir, fmt.Sprint("new ", pass)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListingADirectoryIsTwoRequests(t *testing.T) {
	for _, keepOpen := range []bool{false, true} {
		m := newVolume(t, volume.ModeVolume)
		m.fill("first", 1)
		m.fill("second", 10)
		m.mount(func(o *fs.Options) { o.KeepOpen = keepOpen })
		listing := func(name string, files int) func() {
			return func() {
				fd, err := unix.Open(filepath.Join(m.Dir, name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				list(t, fd, 32<<10, files, func([]string) {})
			}
		}
		// The first OPENDIR of a mount is answered that there need be none.
		m.wantRequests("list a directory", listing("first", 1), map[string]uint64{"LOOKUP": 1, "OPENDIR": 1, "READDIRPLUS": 2})
		want := map[string]uint64{"LOOKUP": 1, "READDIRPLUS": 2}
		if keepOpen {
			want["OPENDIR"] = 1
		}
		m.wantRequests("list another", listing("second", 10), want)
	}
}

// Nothing tells the requests of one reader from those of another.
func TestReadersOfADirectoryEachListAllOfIt(t *testing.T) {
	const files, readers = 3000, 3
	for _, keepOpen := range []bool{false, true} {
		m := newVolume(t, volume.ModeVolume)
		m.fill("dir", files)
		m.mount(func(o *fs.Options) { o.KeepOpen = keepOpen })
		var fds [readers]int
		var seen [readers]map[string]int
		for i := range fds {
			fd, err := unix.Open(filepath.Join(m.Dir, "dir"), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			fds[i], seen[i] = fd, map[string]int{}
		}
		for reading := readers; reading > 0; {
			for i, fd := range fds {
				if fd < 0 {
					continue // it was told that this is all
				}
				all := entries(t, fd, make([]byte, 1000*(i+1)))
				for _, e := range all {
					seen[i][e.name]++
				}
				if len(all) == 0 {
					reading--
					fds[i] = -1
				}
				// Or the kernel answers from what it has kept.
				if err := os.Mkdir(filepath.Join(m.Dir, "dir", "new"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(filepath.Join(m.Dir, "dir", "new")); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, names := range seen {
			delete(names, "new")
			if len(names) != files+2 {
				t.Errorf("reader %d lists %d entries, want %d, and . and ..", i, len(names), files)
			}
			for name, n := range names {
				if n != 1 {
					t.Errorf("reader %d lists %q %d times", i, name, n)
				}
			}
		}
	}
}

func TestALargeDirectoryIsListedInFewCalls(t *testing.T) {
	for _, files := range []int{100, 4000} {
		_, _, fd, _ := largeDir(t, files)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		want := 4 << 10
		if st.Size > 64<<10 { // what that means is the backing store's
			want = 128 << 10
		}
		if int(st.Blksize) != want {
			t.Errorf("%d entries, %d bytes: a block size of %d, want %d", files, st.Size, st.Blksize, want)
		}
	}
}
