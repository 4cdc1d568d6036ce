package volume

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// crashLoad changes a volume whose calls are recorded, and keeps what was
// acknowledged when.
type crashLoad struct {
	t     testing.TB
	b     *bench
	rec   *recorder
	rng   *rand.Rand
	edit  func(*Options)
	v     *Volume
	root  *tracked
	all   []*tracked
	byObj map[*object]*tracked
	made  int // names
	// rewrapped is when the volume's first key was given up.
	rewrapped int
}

// tracked is an object that the load made, and its past.
type tracked struct {
	obj    *object
	node   *Node
	names  map[string]bool // all that it ever had
	where  []placed        // that it has now
	target string          // of a symlink

	versions []fileVersion // of a file
	acks     []fileAck

	entries map[string]*tracked // of a directory, as they are now
	named   []nameChange
	dirAcks []dirAck
	moved   bool
}

type placed struct {
	dir  *tracked
	name string
}

// fileVersion is a file from the event at on, or from a little later.
type fileVersion struct {
	at      int
	content []byte
	attr    string
	// Bytes that may have been written anew, with the same value even.
	from, to int
}

// fileAck: when the event at happened, a version had been synced.
type fileAck struct {
	at, version int
	attrs       bool
	above       []nesting
}

// nesting is a directory in another one.
type nesting struct {
	in  placed
	dir *tracked
}

type nameChange struct {
	at   int
	name string
}

type dirAck struct {
	at      int
	entries map[string]*tracked
	above   []nesting
}

func (f *tracked) isDir() bool { return f.entries != nil }
func (f *tracked) isFile() bool {
	return f.obj.mode&unix.S_IFMT == unix.S_IFREG
}

func newCrashLoad(b *bench, seed uint64, edit func(*Options), lies func(class string) bool) *crashLoad {
	l := &crashLoad{t: b.t, b: b, rng: rand.New(rand.NewPCG(seed, 1)), byObj: map[*object]*tracked{}}
	l.rec = newRecorder(b.t, System{}, b.dir, b.state)
	l.rec.lies = lies
	l.edit = func(o *Options) {
		o.Backing = l.rec
		if edit != nil {
			edit(o)
		}
	}
	l.root = &tracked{obj: l.rec.root, entries: map[string]*tracked{}}
	l.byObj[l.root.obj] = l.root
	l.open()
	return l
}

func (l *crashLoad) open() {
	v, err := l.b.tryOpen(l.edit)
	if err != nil {
		l.t.Fatalf("open: %v", err)
	}
	l.v = v
	l.root.node = v.Root()
	var again func(dir *tracked)
	again = func(dir *tracked) {
		for name, f := range dir.entries {
			f.node = lookup(l.t, dir.node, name)
			if f.isDir() {
				again(f)
			}
		}
	}
	again(l.root)
}

// kill leaves the volume as a killed process does, but for what stays open.
func (l *crashLoad) kill() {
	quietPool(l.v)
	l.v.cancel()
	l.v.tasks.Wait()
	l.v.stopFollowing()
	l.v.session.abandon()
}

func (l *crashLoad) must(what string, err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%s: %v", what, err)
	}
}

// dirs are the directories that can be reached.
func (l *crashLoad) dirs() (out []*tracked) {
	var walk func(*tracked)
	walk = func(d *tracked) {
		out = append(out, d)
		for _, name := range slices.Sorted(maps.Keys(d.entries)) {
			if e := d.entries[name]; e.isDir() {
				walk(e)
			}
		}
	}
	walk(l.root)
	return out
}

func (l *crashLoad) someDir() *tracked { return pickOne(l.rng, l.dirs()) }

// entriesOf lists the entries of a kind, each with its place.
func (l *crashLoad) entriesOf(want func(*tracked) bool) (out []placed) {
	for _, d := range l.dirs() {
		for _, name := range slices.Sorted(maps.Keys(d.entries)) {
			if want(d.entries[name]) {
				out = append(out, placed{d, name})
			}
		}
	}
	return out
}

func pickOne[T any](rng *rand.Rand, of []T) (one T) {
	if len(of) == 0 {
		return one
	}
	return of[rng.IntN(len(of))]
}

// newName is one that was never used; some are long.
func (l *crashLoad) newName() string {
	l.made++
	name := fmt.Sprintf("n%03d", l.made)
	if l.made%7 == 6 || l.made%7 == 0 {
		name += strings.Repeat("x", 200)
	}
	return name
}

// place notes that a name of a directory becomes f, or goes with nil.
func (l *crashLoad) place(at int, d *tracked, name string, f *tracked) {
	if old := d.entries[name]; old != nil {
		old.where = slices.DeleteFunc(old.where, func(p placed) bool { return p == placed{d, name} })
	}
	d.named = append(d.named, nameChange{at, name})
	delete(d.entries, name)
	if f != nil {
		d.entries[name] = f
		f.where = append(f.where, placed{d, name})
		f.names[name] = true
	}
}

// add takes in what was just made.
func (l *crashLoad) add(at int, d *tracked, name string, n *Node) *tracked {
	l.rec.mu.Lock()
	f := &tracked{obj: l.rec.byIno[n.Ino()], node: n, names: map[string]bool{}}
	l.rec.mu.Unlock()
	if n.IsDir() {
		f.entries = map[string]*tracked{}
	}
	l.all = append(l.all, f)
	l.byObj[f.obj] = f
	l.place(at, d, name, f)
	return f
}

func (l *crashLoad) create(d *tracked) *tracked {
	at, name := l.rec.now(), l.newName()
	n, _, err := d.node.Create(name, 0o644, Owner{})
	l.must("create", err)
	f := l.add(at, d, name, n)
	f.versions = []fileVersion{{at: at}}
	quietPool(l.v)
	return f
}

func (l *crashLoad) mkdir(parent *tracked) *tracked {
	at, name := l.rec.now(), l.newName()
	n, _, err := parent.node.Mkdir(name, 0o755, Owner{})
	l.must("mkdir", err)
	return l.add(at, parent, name, n)
}

func (l *crashLoad) symlink(d *tracked, target string) {
	at, name := l.rec.now(), l.newName()
	n, _, err := d.node.Symlink(name, target, Owner{})
	l.must("symlink", err)
	l.add(at, d, name, n).target = target
}

func (f *tracked) now() fileVersion { return f.versions[len(f.versions)-1] }

// edited adds a version.
func (f *tracked) edited(at int, change func(*fileVersion)) {
	v := f.now()
	v.at, v.content, v.from, v.to = at, slices.Clone(v.content), 0, 0
	change(&v)
	if old := len(f.now().content); old != len(v.content) {
		v.from, v.to = min(v.from, old, len(v.content)), max(v.to, old, len(v.content))
	}
	f.versions = append(f.versions, v)
}

func (l *crashLoad) write(f *tracked, off, n int) {
	at := l.rec.now()
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(l.rng.Uint32())
	}
	writeAll(l.t, f.node, data, int64(off))
	f.edited(at, func(v *fileVersion) {
		v.content = append(v.content, make([]byte, max(0, off+n-len(v.content)))...)
		copy(v.content[off:], data)
		v.from, v.to = off, off+n
	})
}

func (l *crashLoad) truncate(f *tracked, size int) {
	at := l.rec.now()
	l.must("truncate", f.node.Truncate(context.Background(), int64(size)))
	f.edited(at, func(v *fileVersion) {
		v.content = append(v.content, make([]byte, max(0, size-len(v.content)))...)[:size]
	})
}

func (l *crashLoad) punch(f *tracked, off, n int) {
	at := l.rec.now()
	l.must("punch", f.node.Allocate(context.Background(), int64(off), int64(n), punchHole))
	f.edited(at, func(v *fileVersion) {
		if off < len(v.content) {
			clear(v.content[off:min(len(v.content), off+n)])
			v.from, v.to = off, off+n
		}
	})
}

func (l *crashLoad) setAttr(f *tracked) {
	at, value := l.rec.now(), fmt.Sprint(l.rng.Uint32())
	l.must("setxattr", f.node.Setxattr("user.k", []byte(value), 0))
	f.edited(at, func(v *fileVersion) { v.attr = value })
}

func (l *crashLoad) rename(from, to placed) {
	at := l.rec.now()
	l.must("rename", from.dir.node.Rename(from.name, to.dir.node, to.name, 0))
	f := from.dir.entries[from.name]
	if to.dir.entries[to.name] == f {
		return
	}
	f.moved = true
	l.place(at, from.dir, from.name, nil)
	l.place(at, to.dir, to.name, f)
}

func (l *crashLoad) link(f *tracked, d *tracked) {
	at, name := l.rec.now(), l.newName()
	_, err := d.node.Link(f.node, name)
	l.must("link", err)
	l.place(at, d, name, f)
}

func (l *crashLoad) remove(p placed) {
	at := l.rec.now()
	f := p.dir.entries[p.name]
	if f.isDir() {
		l.must("rmdir", p.dir.node.Rmdir(p.name))
	} else {
		l.must("unlink", p.dir.node.Unlink(p.name))
	}
	l.place(at, p.dir, p.name, nil)
	if len(f.where) == 0 {
		f.node.Forget()
	}
}

// below tells whether d is dir or lies in it.
func (l *crashLoad) below(d, dir *tracked) bool {
	for d != l.root {
		if d == dir {
			return true
		}
		d = d.where[0].dir
	}
	return dir == l.root
}
