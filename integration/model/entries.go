package model

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

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
				m.children[name] = m.newEntry(unix.S_IFIFO)
			}
			return
		}
		w.last = fmt.Sprintf("create %q", p)
		if w.expect(w.fs.Create(p), want) {
			m.children[name] = m.newEntry(unix.S_IFREG)
			w.write(p, m.children[name])
		}
	case op < 20:
		if depth(dir) == maxDepth {
			return
		}
		w.last = fmt.Sprintf("mkdir %q", p)
		if w.expect(w.fs.Mkdir(p), want) {
			m.children[name] = m.newEntry(unix.S_IFDIR)
		}
	case op < 24:
		w.last = fmt.Sprintf("symlink %q", p)
		target := string(bytes.ReplaceAll(pattern(1+w.rng.IntN(4000), 1), []byte{0}, []byte{'z'}))
		if w.expect(w.fs.Symlink(target, p), want) {
			m.children[name] = m.newEntry(unix.S_IFLNK)
			m.children[name].link = target
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

// maxDepth keeps the longest path well below the 4,095 bytes that the kernel takes.
const maxDepth = 12

// depth is the number of directories in a path of directories.
func depth(dir string) int {
	if dir == "" {
		return 0
	}
	return 1 + strings.Count(dir, "/")
}

// height is the number of directories on the longest way down, n included.
func (n *node) height() int {
	h := 0
	for _, c := range n.children {
		h = max(h, c.height())
	}
	if n.kind == unix.S_IFDIR {
		h++
	}
	return h
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
	if depth(toDir)+moved.height() > maxDepth || (old != nil && depth(dir)+old.height() > maxDepth) {
		return
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
