package model

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Flags of Target.Rename, those of renameat2(2).
const (
	NoReplace = unix.RENAME_NOREPLACE
	Exchange  = unix.RENAME_EXCHANGE
)

// Target is the file system under test. Paths are relative to its root, with
// "" for the root itself; errors are, or wrap, a unix.Errno.
type Target interface {
	Create(path string) error // exclusively, empty
	Mkdir(path string) error
	Symlink(target, path string) error
	Link(old, path string) error
	Unlink(path string) error
	Rmdir(path string) error
	Rename(old, path string, flags uint32) error
	WriteAt(path string, data []byte, off int64) error
	Truncate(path string, size int64) error
	// Fallocate does as fallocate(2), with the modes below.
	Fallocate(path string, mode uint32, off, length int64) error
	// Seek finds data or a hole (unix.SEEK_DATA, unix.SEEK_HOLE).
	Seek(path string, off int64, whence int) (int64, error)
	ReadAt(path string, dest []byte, off int64) (int, error)
	Readlink(path string) (string, error)
	Mkfifo(path string) error
	Chmod(path string, mode uint32) error
	// Chown changes the owner of the entry itself, also of a symlink.
	Chown(path string, uid, gid uint32) error
	SetMtime(path string, mtime time.Time) error
	// The extended attributes of a file or directory; flags as setxattr(2).
	Setxattr(path, name string, value []byte, flags int) error
	Getxattr(path, name string) ([]byte, error)
	Removexattr(path, name string) error
	Listxattr(path string) ([]string, error)
	// Open returns a file that stays usable when its names are gone.
	Open(path string) (Handle, error)
	// CreateTemp makes a file without a name that belongs into a directory.
	CreateTemp(dir string) (Handle, error)
	List(path string) ([]string, error)
	Stat(path string) (Stat, error)
}

// Stat is what the model compares of an entry's attributes.
type Stat struct {
	Size  int64
	Nlink int
	Kind  uint32 // S_IFMT bits
	Mode  uint32 // permission bits
	UID   uint32
	GID   uint32
	Mtime time.Time
}

// Options of a run.
type Options struct {
	Seed  uint64 // 0 draws one
	Steps int
	// Time goes on after these steps until it has passed.
	Time time.Duration
	// Every so many steps everything is compared and Reopen is called, if set.
	Every  int
	Reopen func() Target
	// NoZeroRange says that the target may refuse FALLOC_FL_ZERO_RANGE.
	NoZeroRange bool
	// Store is what the target can do.
	Store Store
	// Forget, if set, makes the target let go of what it caches of a path.
	Forget func(path string)
	// Check, if set, looks at a file once more when everything is compared.
	Check func(path string)
}

// node is what the target should hold at a place. Files are shared by their
// hard links.
type node struct {
	kind     uint32
	children map[string]*node // directories
	content  []byte           // files
	link     string           // symlinks
	nlink    int
	mode     uint32 // until it was changed only suid, sgid and sticky count
	changed  bool   // mode
	uid, gid uint32
	xattrs   map[string][]byte
	mtime    time.Time // zero unless nothing has moved it since it was set
}

// walker does the operations.
type walker struct {
	t    testing.TB
	o    Options
	rng  *rand.Rand
	fs   Target
	root *node
	held []held
	step int
	last string
}

// Run does random operations on fs, which must be empty, and fails the test at
// the first answer that differs from the model's.
func Run(t testing.TB, fs Target, o Options) {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d steps with seed %d", o.Steps, o.Seed)
	w := &walker{t: t, o: o, rng: rand.New(rand.NewPCG(o.Seed, 1)), fs: fs, root: newRoot()}
	defer w.close() // or a test that failed could not unmount
	for start := time.Now(); w.step < o.Steps || time.Since(start) < o.Time; w.step++ {
		w.one()
		if o.Forget != nil && w.rng.IntN(20) == 0 {
			dir, m := w.pick()
			if name, n := w.existing(m, 0); n != nil {
				o.Forget(path.Join(dir, name))
			}
		}
		if o.Every > 0 && w.step%o.Every == o.Every-1 {
			w.last = "compare"
			w.compare("", w.root)
			w.letGo()
			if o.Reopen != nil {
				w.fs = o.Reopen()
			}
		}
	}
	w.last = "compare at the end"
	w.compare("", w.root)
	w.letGo()
	t.Logf("%d steps done", w.step)
}

func (w *walker) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("step %d, %s: %s", w.step, w.last, fmt.Sprintf(format, args...))
}

// expect compares an error; it tells whether the operation should have happened.
func (w *walker) expect(err error, want unix.Errno) bool {
	w.t.Helper()
	if (want == 0 && err != nil) || (want != 0 && !errors.Is(err, want)) {
		w.fail("got %v, want %v", err, want)
	}
	return want == 0
}

// one does one operation.
func (w *walker) one() {
	dir, m := w.pick()
	name := w.name()
	switch op := w.rng.IntN(110); {
	case op < 28:
		w.make(op, dir, m, name)
	case op < 36:
		w.unlink(path.Join(dir, name), m, name)
	case op < 40:
		w.rmdir(path.Join(dir, name), m, name)
	case op < 54:
		w.rename(dir, m)
	case op < 90:
		if name, f := w.existing(m, unix.S_IFREG); f != nil {
			w.content(op, path.Join(dir, name), f)
		}
	case op < 93:
		if name, f := w.existing(m, unix.S_IFREG); f != nil {
			w.hold(path.Join(dir, name), f)
		}
	case op < 97:
		if name, n := w.existing(m, 0); n != nil {
			w.attributes(path.Join(dir, name), n)
		}
	case op < 100:
		w.last = fmt.Sprintf("list %q", dir)
		w.list(dir, m)
	case op < 106:
		if name, n := w.existing(m, 0); n != nil {
			w.xattr(path.Join(dir, name), n)
		}
	case op < 108:
		w.createTemp(dir, m)
	default:
		w.linkHeld(path.Join(dir, name), m, name)
	}
}

func (w *walker) list(dir string, m *node) {
	got, err := w.fs.List(dir)
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(m.children)); err != nil || !slices.Equal(got, want) {
		w.fail("%q holds %q, %v, want %q", dir, got, err, want)
	}
}

// compare checks the whole tree.
func (w *walker) compare(dir string, m *node) {
	w.list(dir, m)
	for name, c := range m.children {
		p := path.Join(dir, name)
		st, err := w.fs.Stat(p)
		if err != nil || st.Kind != c.kind {
			w.fail("stat %q: %+v, %v, want kind %o", p, st, err, c.kind)
		}
		if want := c.seen(st.Mode); st.Mode != want {
			w.fail("stat %q: mode %o, want %o", p, st.Mode, want)
		}
		if st.UID != c.uid || st.GID != c.gid {
			w.fail("stat %q: owner %d:%d, want %d:%d", p, st.UID, st.GID, c.uid, c.gid)
		}
		w.compareXattrs(p, c)
		if c.kind != unix.S_IFDIR && !c.mtime.IsZero() && !st.Mtime.Equal(c.mtime) {
			w.fail("stat %q: mtime %v, want %v", p, st.Mtime, c.mtime)
		}
		switch c.kind {
		case unix.S_IFDIR:
			w.compare(p, c)
		case unix.S_IFREG:
			w.read(p, c)
			if st.Size != int64(len(c.content)) || st.Nlink != c.nlink {
				w.fail("stat %q: %+v, want size %d, links %d", p, st, len(c.content), c.nlink)
			}
			if w.o.Check != nil {
				w.o.Check(p)
			}
		case unix.S_IFLNK:
			link, err := w.fs.Readlink(p)
			if err != nil || link != c.link || st.Size != int64(len(c.link)) {
				w.fail("readlink %q: %d bytes, %v, want %d; size %d", p, len(link), err, len(c.link), st.Size)
			}
		}
	}
}
