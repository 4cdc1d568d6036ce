// Package model compares a file system with a model of it in memory: the same
// random operations are done on both, and every answer must agree. Any file
// system that can be reached by paths can be the target: a volume without a
// mount, a mount, a plain directory.
package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
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
	SetMtime(path string, mtime time.Time) error
	// Open returns a file that stays usable when its names are gone.
	Open(path string) (Handle, error)
	List(path string) ([]string, error)
	Stat(path string) (Stat, error)
}

// Handle is an open file.
type Handle interface {
	WriteAt(data []byte, off int64) (int, error)
	ReadAt(dest []byte, off int64) (int, error)
	Truncate(size int64) error
	Close() error
}

// Stat is what the model compares of an entry's attributes.
type Stat struct {
	Size  int64
	Nlink int
	Kind  uint32 // S_IFMT bits
	Mode  uint32 // permission bits
	Mtime time.Time
}

// Options of a run.
type Options struct {
	Seed  uint64 // 0 draws one
	Steps int
	// Every so many steps everything is compared and Reopen is called, if set.
	Every  int
	Reopen func() Target
	// NoZeroRange says that the target may refuse FALLOC_FL_ZERO_RANGE.
	NoZeroRange bool
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
	mode     uint32    // 0 until it was changed
	mtime    time.Time // zero unless nothing has moved it since it was set
}

func newDir() *node { return &node{kind: unix.S_IFDIR, children: map[string]*node{}} }

// contains tells whether d is n or below it.
func (n *node) contains(d *node) bool {
	if n == d {
		return true
	}
	for _, c := range n.children {
		if c.contains(d) {
			return true
		}
	}
	return false
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

// held is an open file, whatever became of its names.
type held struct {
	h Handle
	n *node
}

const maxHeld = 6

// Run does random operations on fs, which must be empty, and fails the test at
// the first answer that differs from the model's.
func Run(t testing.TB, fs Target, o Options) {
	t.Helper()
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d steps with seed %d", o.Steps, o.Seed)
	w := &walker{t: t, o: o, rng: rand.New(rand.NewPCG(o.Seed, 1)), fs: fs, root: newDir()}
	for w.step = range o.Steps {
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
}

// letGo closes all open files, after comparing them.
func (w *walker) letGo() {
	for len(w.held) > 0 {
		w.release(0)
	}
}

// hold opens a file and keeps it, or works with one that is held.
func (w *walker) hold(p string, f *node) {
	if w.rng.IntN(3) > 0 && len(w.held) > 0 {
		w.useHeld(w.rng.IntN(len(w.held)))
		return
	}
	if len(w.held) == maxHeld {
		w.release(w.rng.IntN(maxHeld))
	}
	w.last = fmt.Sprintf("open %q", p)
	h, err := w.fs.Open(p)
	w.expect(err, 0)
	w.held = append(w.held, held{h, f})
}

// useHeld writes, truncates and reads through an open file.
func (w *walker) useHeld(i int) {
	h, f := w.held[i].h, w.held[i].n
	w.last = fmt.Sprintf("use of an open file with %d names", f.nlink)
	switch w.rng.IntN(3) {
	case 0:
		size := w.size()
		w.expect(h.Truncate(int64(size)), 0)
		f.resize(size)
	case 1:
		off := w.rng.IntN(len(f.content) + 1)
		data := pattern(1+w.rng.IntN(9000), byte(w.step))
		n, err := h.WriteAt(data, int64(off))
		if err != nil || n != len(data) {
			w.fail("write: %d, %v", n, err)
		}
		f.resize(max(len(f.content), off+len(data)))
		copy(f.content[off:], data)
	}
	f.mtime = time.Time{}
	w.readHeld(h, f)
}

func (w *walker) readHeld(h Handle, f *node) {
	got := make([]byte, len(f.content)+1)
	n, err := h.ReadAt(got, 0)
	if (err != nil && err != io.EOF) || !bytes.Equal(got[:n], f.content) {
		w.fail("read %d bytes, %v, that differ from the %d expected", n, err, len(f.content))
	}
}

func (w *walker) release(i int) {
	w.last = "close of an open file"
	w.readHeld(w.held[i].h, w.held[i].n)
	w.expect(w.held[i].h.Close(), 0)
	w.held = slices.Delete(w.held, i, i+1)
}

// attributes changes mode or modification time.
func (w *walker) attributes(p string, n *node) {
	if n.kind == unix.S_IFLNK {
		return
	}
	if w.rng.IntN(2) == 0 {
		mode := []uint32{0o600, 0o644, 0o755, 0o700, 0o666}[w.rng.IntN(5)]
		if n.kind == unix.S_IFDIR {
			mode |= 0o700
		}
		w.last = fmt.Sprintf("chmod %q to %o", p, mode)
		w.expect(w.fs.Chmod(p, mode), 0)
		n.mode = mode
		return
	}
	mtime := time.Unix(w.rng.Int64N(2_000_000_000), w.rng.Int64N(1_000_000_000))
	w.last = fmt.Sprintf("set the mtime of %q to %v", p, mtime)
	w.expect(w.fs.SetMtime(p, mtime), 0)
	n.mtime = mtime
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

// pick descends at random to a directory.
func (w *walker) pick() (string, *node) {
	dir, n := "", w.root
	for w.rng.IntN(3) > 0 {
		name, c := w.existing(n, unix.S_IFDIR)
		if c == nil {
			break
		}
		dir, n = path.Join(dir, name), c
	}
	return dir, n
}

// existing picks an entry of a kind, or of any with 0.
func (w *walker) existing(dir *node, kind uint32) (string, *node) {
	var names []string
	for name, c := range dir.children {
		if kind == 0 || c.kind == kind {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	slices.Sort(names)
	name := names[w.rng.IntN(len(names))]
	return name, dir.children[name]
}

// name gives one of few names, so that operations meet: short, long, odd.
func (w *walker) name() string {
	switch i := w.rng.IntN(9); i {
	case 7:
		return string(bytes.Repeat([]byte{'n'}, 200)) + fmt.Sprint(w.rng.IntN(3))
	case 8:
		return "\xff\xfe odd\n" + fmt.Sprint(w.rng.IntN(2))
	default:
		return fmt.Sprint("n", i)
	}
}

func (w *walker) size() int {
	sizes := []int{0, 1, 4095, 4096, 4097, 8192, 5000, 12288, 100, 40000, 140000}
	return sizes[w.rng.IntN(len(sizes))]
}

// one does one operation.
func (w *walker) one() {
	dir, m := w.pick()
	name := w.name()
	switch op := w.rng.IntN(100); {
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
	default:
		w.last = fmt.Sprintf("list %q", dir)
		w.list(dir, m)
	}
}

// make adds an entry.
func (w *walker) make(op int, dir string, m *node, name string) {
	p, old := path.Join(dir, name), m.children[name]
	want := unix.Errno(0)
	if old != nil {
		want = unix.EEXIST
	}
	switch {
	case op < 14:
		if op == 0 {
			w.last = fmt.Sprintf("mkfifo %q", p)
			if w.expect(w.fs.Mkfifo(p), want) {
				m.children[name] = &node{kind: unix.S_IFIFO, nlink: 1}
			}
			return
		}
		w.last = fmt.Sprintf("create %q", p)
		if w.expect(w.fs.Create(p), want) {
			m.children[name] = &node{kind: unix.S_IFREG, nlink: 1}
			w.write(p, m.children[name])
		}
	case op < 20:
		w.last = fmt.Sprintf("mkdir %q", p)
		if w.expect(w.fs.Mkdir(p), want) {
			m.children[name] = newDir()
		}
	case op < 24:
		w.last = fmt.Sprintf("symlink %q", p)
		target := string(bytes.ReplaceAll(pattern(1+w.rng.IntN(4000), 1), []byte{0}, []byte{'z'}))
		if w.expect(w.fs.Symlink(target, p), want) {
			m.children[name] = &node{kind: unix.S_IFLNK, link: target, nlink: 1}
		}
	default:
		from, fromDir := w.pick()
		source, f := w.existing(fromDir, 0)
		if f == nil {
			return
		}
		w.last = fmt.Sprintf("link %q to %q", path.Join(from, source), p)
		if f.kind == unix.S_IFDIR {
			want = unix.EPERM
		}
		err := w.fs.Link(path.Join(from, source), p)
		if want == unix.EPERM && old != nil && errors.Is(err, unix.EEXIST) {
			return // both are wrong with it
		}
		if w.expect(err, want) {
			f.nlink++
			m.children[name] = f
		}
	}
}

func (w *walker) unlink(p string, m *node, name string) {
	w.last = fmt.Sprintf("unlink %q", p)
	old := m.children[name]
	err := w.fs.Unlink(p)
	switch {
	case old == nil:
		w.expect(err, unix.ENOENT)
	case old.kind == unix.S_IFDIR:
		w.expect(err, unix.EISDIR)
	default:
		w.expect(err, 0)
		old.nlink--
		delete(m.children, name)
	}
}

func (w *walker) rmdir(p string, m *node, name string) {
	w.last = fmt.Sprintf("rmdir %q", p)
	old := m.children[name]
	err := w.fs.Rmdir(p)
	switch {
	case old == nil:
		w.expect(err, unix.ENOENT)
	case old.kind != unix.S_IFDIR:
		w.expect(err, unix.ENOTDIR)
	case len(old.children) > 0:
		w.expect(err, unix.ENOTEMPTY)
	default:
		w.expect(err, 0)
		delete(m.children, name)
	}
}

func (w *walker) rename(dir string, m *node) {
	name, moved := w.existing(m, 0)
	if moved == nil {
		return
	}
	toDir, to := w.pick()
	newName := w.name()
	old := to.children[newName]
	flags := []uint32{0, 0, 0, NoReplace, Exchange}[w.rng.IntN(5)]
	w.last = fmt.Sprintf("rename %q to %q, flags %d", path.Join(dir, name), path.Join(toDir, newName), flags)
	if moved.contains(to) || (old != nil && old.contains(m)) {
		return // the kernel refuses it before it reaches a file system
	}
	err := w.fs.Rename(path.Join(dir, name), path.Join(toDir, newName), flags)
	switch {
	case flags == Exchange && old == nil:
		w.expect(err, unix.ENOENT)
	case flags == NoReplace && old != nil:
		w.expect(err, unix.EEXIST)
	case old == moved:
		w.expect(err, 0)
	case flags == Exchange:
		w.expect(err, 0)
		m.children[name], to.children[newName] = old, moved
	case old != nil && old.kind == unix.S_IFDIR && moved.kind != unix.S_IFDIR:
		w.expect(err, unix.EISDIR)
	case old != nil && old.kind != unix.S_IFDIR && moved.kind == unix.S_IFDIR:
		w.expect(err, unix.ENOTDIR)
	case old != nil && len(old.children) > 0:
		w.expect(err, unix.ENOTEMPTY)
	default:
		w.expect(err, 0)
		if old != nil {
			old.nlink--
		}
		delete(m.children, name)
		to.children[newName] = moved
	}
}

// content writes, truncates or reads a file.
func (w *walker) content(op int, p string, f *node) {
	switch {
	case op < 76:
		w.last = fmt.Sprintf("write %q", p)
		w.write(p, f)
	case op < 79:
		w.fallocate(p, f)
	case op < 81:
		w.seek(p, f)
	case op < 86:
		size := w.size()
		w.last = fmt.Sprintf("truncate %q from %d to %d", p, len(f.content), size)
		w.expect(w.fs.Truncate(p, int64(size)), 0)
		f.resize(size)
	default:
		w.last = fmt.Sprintf("read %q", p)
		w.read(p, f)
	}
}

// fallocate reserves, zeroes or punches out a range.
func (w *walker) fallocate(p string, f *node) {
	modes := []uint32{
		0, unix.FALLOC_FL_KEEP_SIZE, unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE,
		unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE,
	}
	mode := modes[w.rng.IntN(len(modes))]
	off, length := w.rng.IntN(len(f.content)+5000), 1+w.rng.IntN(30000)
	w.last = fmt.Sprintf("fallocate %q mode %d, %d at %d of %d", p, mode, length, off, len(f.content))
	err := w.fs.Fallocate(p, mode, int64(off), int64(length))
	if errors.Is(err, unix.EOPNOTSUPP) && w.o.NoZeroRange && mode&unix.FALLOC_FL_ZERO_RANGE != 0 {
		return
	}
	w.expect(err, 0)
	f.mtime = time.Time{}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 && off < len(f.content) {
		clear(f.content[off:min(len(f.content), off+length)])
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		f.resize(max(len(f.content), off+length))
	}
}

// seek checks what SEEK_DATA and SEEK_HOLE promise: nothing but zeros is ever
// skipped as a hole, and what is called a hole reads as zeros.
func (w *walker) seek(p string, f *node) {
	off := w.rng.IntN(len(f.content) + 2)
	w.last = fmt.Sprintf("seek %q from %d of %d", p, off, len(f.content))
	data, err := w.fs.Seek(p, int64(off), unix.SEEK_DATA)
	if off >= len(f.content) {
		w.expect(err, unix.ENXIO)
		return
	}
	skipped := len(f.content)
	if err == nil {
		skipped = int(data)
	} else {
		w.expect(err, unix.ENXIO)
	}
	if skipped < off || len(bytes.TrimLeft(f.content[off:skipped], "\x00")) > 0 {
		w.fail("SEEK_DATA: %d, %v: data was skipped", data, err)
	}
	hole, err := w.fs.Seek(p, int64(off), unix.SEEK_HOLE)
	if err != nil || hole < int64(off) || hole > int64(len(f.content)) {
		w.fail("SEEK_HOLE: %d, %v", hole, err)
	}
	if hole < int64(len(f.content)) && f.content[hole] != 0 {
		w.fail("SEEK_HOLE: %d is no hole", hole)
	}
}

func (n *node) resize(size int) {
	n.mtime = time.Time{}
	if size <= len(n.content) {
		n.content = n.content[:size:size]
	} else {
		n.content = append(n.content, make([]byte, size-len(n.content))...)
	}
}

func (w *walker) write(p string, f *node) {
	off := 0
	switch w.rng.IntN(4) {
	case 0:
		off = w.size()
	case 1:
		off = len(f.content)
	case 2:
		off = w.rng.IntN(len(f.content) + 1)
	}
	data := pattern(1+w.rng.IntN(20000), byte(w.step))
	w.last += fmt.Sprintf(" (%d bytes at %d of %d)", len(data), off, len(f.content))
	w.expect(w.fs.WriteAt(p, data, int64(off)), 0)
	f.resize(max(len(f.content), off+len(data)))
	copy(f.content[off:], data)
}

func (w *walker) read(p string, f *node) {
	w.t.Helper()
	got := make([]byte, len(f.content)+1)
	n, err := w.fs.ReadAt(p, got, 0)
	if err != nil || !bytes.Equal(got[:n], f.content) {
		w.fail("read %d bytes, %v, that differ from the %d expected", n, err, len(f.content))
	}
	if len(f.content) == 0 {
		return
	}
	off := w.rng.IntN(len(f.content))
	part := make([]byte, 1+w.rng.IntN(9000))
	n, err = w.fs.ReadAt(p, part, int64(off))
	if want := f.content[off:min(len(f.content), off+len(part))]; err != nil || !bytes.Equal(part[:n], want) {
		w.fail("read %d at %d: %d, %v", len(part), off, n, err)
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
		if c.mode != 0 && st.Mode != c.mode {
			w.fail("stat %q: mode %o, want %o", p, st.Mode, c.mode)
		}
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

// pattern is n bytes that depend on seed and repeat nowhere near.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*31 + byte(i>>8)*17 + seed
	}
	return b
}
