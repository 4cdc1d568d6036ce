package volume

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	modelSeed  = flag.Uint64("model.seed", 0, "seed of the model test; 0 draws one")
	modelSteps = flag.Int("model.steps", 6000, "operations of the model test")
)

// model is what a volume should hold: a tree in memory. Files are shared by
// their hard links.
type model struct {
	children map[string]*model // directories
	content  []byte            // files
	target   string            // symlinks
	kind     byte              // 'd', 'f', 'l'
	nlink    int
}

func newModelDir() *model { return &model{kind: 'd', children: map[string]*model{}} }

// walker does the same random operations on a volume and on a model.
type walker struct {
	t    *testing.T
	rng  *rand.Rand
	v    *Volume
	root *model
	step int
	last string
}

func (w *walker) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("step %d, %s: %s", w.step, w.last, fmt.Sprintf(format, args...))
}

// pick descends at random to a directory.
func (w *walker) pick() (*Node, *model, string) {
	n, m, path := w.v.Root(), w.root, ""
	for w.rng.IntN(3) > 0 {
		var dirs []string
		for name, c := range m.children {
			if c.kind == 'd' {
				dirs = append(dirs, name)
			}
		}
		if len(dirs) == 0 {
			break
		}
		slices.Sort(dirs)
		name := dirs[w.rng.IntN(len(dirs))]
		child, _, err := n.Lookup(name)
		if err != nil {
			w.fail("lookup %q: %v", path+"/"+name, err)
		}
		n, m, path = child, m.children[name], path+"/"+name
	}
	return n, m, path
}

// name gives one of few names, so that operations meet: short, long, odd.
func (w *walker) name() string {
	i := w.rng.IntN(9)
	switch i {
	case 7:
		return string(bytes.Repeat([]byte{'n'}, 200)) + fmt.Sprint(w.rng.IntN(3))
	case 8:
		return "\xff\xfe odd\n" + fmt.Sprint(w.rng.IntN(2))
	}
	return fmt.Sprint("n", i)
}

func (w *walker) existing(m *model, kind byte) (string, *model) {
	var names []string
	for name, c := range m.children {
		if kind == 0 || c.kind == kind {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "", nil
	}
	slices.Sort(names)
	name := names[w.rng.IntN(len(names))]
	return name, m.children[name]
}

func (w *walker) size() int {
	sizes := []int{0, 1, 4095, 4096, 4097, 8192, 5000, 12288, 100, 40000, 140000}
	return sizes[w.rng.IntN(len(sizes))]
}

func errnoIs(err error, want unix.Errno) bool {
	if want == 0 {
		return err == nil
	}
	return errors.Is(err, want)
}

func (w *walker) expect(err error, want unix.Errno) bool {
	w.t.Helper()
	if !errnoIs(err, want) {
		w.fail("got %v, want %v", err, want)
	}
	return want == 0
}

func (w *walker) one() {
	n, m, path := w.pick()
	name := w.name()
	old := m.children[name]
	w.last = fmt.Sprintf("in %q with %q", path, name)
	exists := func() unix.Errno {
		if old != nil {
			return unix.EEXIST
		}
		return 0
	}
	switch op := w.rng.IntN(100); {
	case op < 14:
		w.last = "create " + w.last
		child, _, err := n.Create(name, 0o640, Owner{})
		if w.expect(err, exists()) {
			f := &model{kind: 'f', nlink: 1}
			m.children[name] = f
			w.write(child, f)
		}
	case op < 20:
		w.last = "mkdir " + w.last
		_, _, err := n.Mkdir(name, 0o755, Owner{})
		if w.expect(err, exists()) {
			m.children[name] = newModelDir()
		}
	case op < 24:
		w.last = "symlink " + w.last
		target := string(pattern(1+w.rng.IntN(4000), 1))
		target = string(bytes.ReplaceAll([]byte(target), []byte{0}, []byte{'z'}))
		_, _, err := n.Symlink(name, target, Owner{})
		if w.expect(err, exists()) {
			m.children[name] = &model{kind: 'l', target: target, nlink: 1}
		}
	case op < 28:
		w.link(n, m, name, old)
	case op < 36:
		w.last = "unlink " + w.last
		err := n.Unlink(name)
		switch {
		case old == nil:
			w.expect(err, unix.ENOENT)
		case old.kind == 'd':
			w.expect(err, unix.EISDIR)
		default:
			w.expect(err, 0)
			old.nlink--
			delete(m.children, name)
		}
	case op < 40:
		w.last = "rmdir " + w.last
		err := n.Rmdir(name)
		switch {
		case old == nil:
			w.expect(err, unix.ENOENT)
		case old.kind != 'd':
			w.expect(err, unix.ENOTDIR)
		case len(old.children) > 0:
			w.expect(err, unix.ENOTEMPTY)
		default:
			w.expect(err, 0)
			delete(m.children, name)
		}
	case op < 54:
		w.rename(n, m, path)
	case op < 76:
		if name, f := w.existing(m, 'f'); f != nil {
			w.last = fmt.Sprintf("write %q/%q", path, name)
			w.write(lookup(w.t, n, name), f)
		}
	case op < 84:
		if name, f := w.existing(m, 'f'); f != nil {
			size := w.size()
			w.last = fmt.Sprintf("truncate %q/%q from %d to %d", path, name, len(f.content), size)
			w.expect(lookup(w.t, n, name).Truncate(context.Background(), int64(size)), 0)
			if size <= len(f.content) {
				f.content = f.content[:size:size]
			} else {
				f.content = append(f.content, make([]byte, size-len(f.content))...)
			}
		}
	case op < 96:
		if name, f := w.existing(m, 'f'); f != nil {
			w.last = fmt.Sprintf("read %q/%q", path, name)
			w.read(lookup(w.t, n, name), f)
		}
	default:
		w.last = "list " + path
		got := list(w.t, n)
		slices.Sort(got)
		if want := slices.Sorted(maps.Keys(m.children)); !slices.Equal(got, want) {
			w.fail("got %q, want %q", got, want)
		}
	}
}

// forget lets go of some entry, as the kernel does when memory is short.
func (w *walker) forget() {
	n, m, _ := w.pick()
	if name, _ := w.existing(m, 0); name != "" {
		lookup(w.t, n, name).Forget()
	}
}

func (w *walker) link(n *Node, m *model, name string, old *model) {
	from, fromModel, _ := w.pick()
	source, f := w.existing(fromModel, 0)
	if f == nil {
		return
	}
	w.last = fmt.Sprintf("link %q to it %s", source, w.last)
	_, err := n.Link(lookup(w.t, from, source), name)
	switch {
	case f.kind == 'd':
		w.expect(err, unix.EPERM)
	case old != nil:
		w.expect(err, unix.EEXIST)
	default:
		w.expect(err, 0)
		f.nlink++
		m.children[name] = f
	}
}

// contains tells whether d is m or below it.
func (m *model) contains(d *model) bool {
	if m == d {
		return true
	}
	for _, c := range m.children {
		if c.contains(d) {
			return true
		}
	}
	return false
}

func (w *walker) rename(n *Node, m *model, path string) {
	name, moved := w.existing(m, 0)
	if moved == nil {
		return
	}
	to, toModel, toPath := w.pick()
	newName := w.name()
	old := toModel.children[newName]
	flags := []uint32{0, 0, 0, RenameNoReplace, RenameExchange}[w.rng.IntN(5)]
	w.last = fmt.Sprintf("rename %q/%q to %q/%q, flags %d", path, name, toPath, newName, flags)
	if moved.contains(toModel) || (old != nil && old.contains(m)) {
		return // the kernel refuses it before it reaches us
	}
	err := n.Rename(name, to, newName, flags)
	switch {
	case flags == RenameExchange && old == nil:
		w.expect(err, unix.ENOENT)
		return
	case flags == RenameNoReplace && old != nil:
		w.expect(err, unix.EEXIST)
		return
	case old == moved:
		w.expect(err, 0)
		return
	case flags == RenameExchange:
		w.expect(err, 0)
		m.children[name], toModel.children[newName] = old, moved
		return
	case old != nil && old.kind == 'd' && moved.kind != 'd':
		w.expect(err, unix.EISDIR)
		return
	case old != nil && old.kind != 'd' && moved.kind == 'd':
		w.expect(err, unix.ENOTDIR)
		return
	case old != nil && len(old.children) > 0:
		w.expect(err, unix.ENOTEMPTY)
		return
	}
	w.expect(err, 0)
	if old != nil {
		old.nlink--
	}
	delete(m.children, name)
	toModel.children[newName] = moved
}

func (w *walker) write(n *Node, f *model) {
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
	m, err := n.WriteAt(context.Background(), data, int64(off))
	if err != nil || m != len(data) {
		w.fail("write: %d, %v", m, err)
	}
	if need := off + len(data); need > len(f.content) {
		f.content = append(f.content, make([]byte, need-len(f.content))...)
	}
	copy(f.content[off:], data)
}

func (w *walker) read(n *Node, f *model) {
	w.t.Helper()
	got, err := tryReadAll(n)
	if err != nil {
		w.fail("read: %v", err)
	}
	if !bytes.Equal(got, f.content) {
		w.fail("read %d bytes that differ from the %d expected", len(got), len(f.content))
	}
	if len(f.content) == 0 {
		return
	}
	off := w.rng.IntN(len(f.content))
	part := make([]byte, 1+w.rng.IntN(9000))
	m, err := n.ReadAt(context.Background(), part, int64(off))
	if want := f.content[off:min(len(f.content), off+len(part))]; err != nil || !bytes.Equal(part[:m], want) {
		w.fail("read %d at %d: %d, %v", len(part), off, m, err)
	}
}

// compare checks the whole tree.
func (w *walker) compare(n *Node, m *model, path string) {
	got := list(w.t, n)
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(m.children)); !slices.Equal(got, want) {
		w.fail("%q holds %q, want %q", path, got, want)
	}
	for name, c := range m.children {
		child, a, err := n.Lookup(name)
		if err != nil {
			w.fail("lookup %q/%q: %v", path, name, err)
		}
		switch c.kind {
		case 'd':
			w.compare(child, c, path+"/"+name)
		case 'f':
			w.read(child, c)
			checkSeal(w.t, child)
			if a.Size != uint64(len(c.content)) || int(a.Nlink) != c.nlink {
				w.fail("%q/%q: size %d, want %d; nlink %d, want %d", path, name, a.Size, len(c.content), a.Nlink, c.nlink)
			}
		case 'l':
			target, err := child.Readlink()
			if err != nil || target != c.target || a.Size != uint64(len(c.target)) {
				w.fail("%q/%q: link of %d bytes, %v, want %d; size %d", path, name, len(target), err, len(c.target), a.Size)
			}
		}
	}
}

func TestRandomOperationsAgreeWithAModelAlsoAfterReopening(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			seed := *modelSeed
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("seed %d (repeat with -model.seed)", seed)
			b := newBench(t, mode)
			w := &walker{t: t, rng: rand.New(rand.NewPCG(seed, 1)), root: newModelDir()}
			// Few descriptors, so that files are closed and opened all the time.
			few := func(o *Options) { o.MaxDescriptors = 8 }
			w.v = b.open(few)
			for w.step = range *modelSteps {
				w.one()
				if w.rng.IntN(20) == 0 {
					w.forget()
				}
				if w.step%1500 == 1499 {
					w.last = "compare"
					w.compare(w.v.Root(), w.root, "")
					b.close(w.v)
					w.v = b.open(few)
				}
			}
			w.compare(w.v.Root(), w.root, "")
		})
	}
}
