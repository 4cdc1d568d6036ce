package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

// foreseen is what fs/foresight.go says.
const foreseen = 8

// dataOpens tells which data files of the backing store were opened, in order.
type dataOpens struct {
	volume.Backing
	mu    sync.Mutex
	names []string
}

func (o *dataOpens) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if flags&unix.O_ACCMODE == unix.O_RDWR && flags&(unix.O_CREAT|unix.O_DIRECTORY|unix.O_PATH) == 0 && !strings.Contains(name, ".") {
		o.mu.Lock()
		o.names = append(o.names, name)
		o.mu.Unlock()
	}
	return o.Backing.Openat(dirfd, name, flags, mode)
}

func (o *dataOpens) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.names)
}

// coldFiles mounts a volume with a directory of files that nobody has opened.
func coldFiles(t *testing.T, files int) (dir string, opened *dataOpens) {
	t.Helper()
	opened = &dataOpens{Backing: volume.System{}}
	m := newVolume(t, volume.ModeVolume)
	m.mount(func(o *fs.Options) { o.NoWriteback = true }) // closing a file opens none again
	if err := os.Mkdir(filepath.Join(m.Dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, i := range rand.Perm(files) { // so that no order is that of another
		if err := os.WriteFile(filepath.Join(m.Dir, "dir", string(rune('A'+i/26))+string(rune('a'+i%26))), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.unmount()
	m.backing = opened
	m.mount()
	return filepath.Join(m.Dir, "dir"), opened
}

// listed returns the files of a directory in the order of its listing.
func listed(t *testing.T, dir string) []string {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func readWhole(t *testing.T, path string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
		t.Errorf("read %s: %q, %v", path, b, err)
	}
}

// settles waits until so many files were opened, and looks that no more are.
func (o *dataOpens) settles(t *testing.T, want int) {
	t.Helper()
	for end := time.Now().Add(patience); o.count() < want && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := o.count(); n != want {
		t.Errorf("%d files were opened, want %d", n, want)
	}
}

func TestFilesThatAreReadInOrderAreOpenedAhead(t *testing.T) {
	const files = 60
	inode := func(dir, name string) uint64 {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	for order, sort := range map[string]func(dir string, names []string){
		"as listed": func(string, []string) {},
		"backwards": func(_ string, names []string) { slices.Reverse(names) },
		"by name":   func(_ string, names []string) { slices.Sort(names) },
		"by inode": func(dir string, names []string) {
			slices.SortFunc(names, func(x, y string) int { return int(inode(dir, x)) - int(inode(dir, y)) })
		},
		"by inode, backwards": func(dir string, names []string) {
			slices.SortFunc(names, func(x, y string) int { return int(inode(dir, y)) - int(inode(dir, x)) })
		},
	} {
		t.Run(order, func(t *testing.T) {
			dir, opened := coldFiles(t, files)
			names := listed(t, dir)
			sort(dir, names)
			opened.settles(t, 0)
			readWhole(t, filepath.Join(dir, names[0]))
			opened.settles(t, 1)
			readWhole(t, filepath.Join(dir, names[1]))
			opened.settles(t, 2+foreseen)
			for _, name := range names[2:] {
				readWhole(t, filepath.Join(dir, name))
			}
			opened.settles(t, files) // each once
			all := slices.Clone(opened.names)
			slices.Sort(all)
			if n := len(slices.Compact(all)); n != files {
				t.Errorf("%d different files were opened, want %d", n, files)
			}
		})
	}
}

func TestFilesThatAreReadInNoOrderAreHardlyOpenedAhead(t *testing.T) {
	const files = 300
	dir, opened := coldFiles(t, files)
	names := listed(t, dir)
	// Every third file, not in an order that a directory has.
	rand.Shuffle(files, func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:files/3] {
		readWhole(t, filepath.Join(dir, name))
	}
	time.Sleep(20 * time.Millisecond)
	// By chance one comes after another; waste and half as many as were of use are all.
	if n := opened.count(); n > files/3+64+files/3/2 {
		t.Errorf("%d files were opened, of which %d were read", n, files/3)
	}
}

func TestNothingIsOpenedAheadOfWhoDidNotList(t *testing.T) {
	dir, opened := coldFiles(t, 30)
	for i := range 5 {
		readWhole(t, filepath.Join(dir, "A"+string(rune('a'+i))))
	}
	opened.settles(t, 5)
}
