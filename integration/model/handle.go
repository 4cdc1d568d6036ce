package model

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Handle is an open file.
type Handle interface {
	WriteAt(data []byte, off int64) (int, error)
	ReadAt(dest []byte, off int64) (int, error)
	Truncate(size int64) error
	// Link gives the file one more name in the target that it is of.
	Link(fs Target, path string) error
	Close() error
}

// held is an open file, whatever became of its names.
type held struct {
	h       Handle
	n       *node
	unnamed bool // never had a name
}

const maxHeld = 6

// letGo closes all open files, after comparing them.
func (w *walker) letGo() {
	for len(w.held) > 0 {
		w.release(0)
	}
}

// close closes them as they are.
func (w *walker) close() {
	for _, h := range w.held {
		_ = h.h.Close()
	}
}

// hold opens a file and keeps it, or works with one that is held.
func (w *walker) hold(p string, f *node) {
	if w.rng.IntN(3) > 0 && len(w.held) > 0 {
		w.useHeld(w.rng.IntN(len(w.held)))
		return
	}
	w.last = fmt.Sprintf("open %q", p)
	h, err := w.fs.Open(p)
	w.expect(err, 0)
	w.keep(held{h: h, n: f})
}

// keep adds an open file to those that are held.
func (w *walker) keep(h held) {
	w.held = append(w.held, h)
	if len(w.held) > maxHeld {
		w.release(w.rng.IntN(maxHeld))
	}
}

// createTemp makes a file without a name and writes to it. It may get a name
// later, or none.
func (w *walker) createTemp(dir string, m *node) {
	w.last = fmt.Sprintf("make a file without a name in %q", dir)
	h, err := w.fs.CreateTemp(dir)
	if !w.o.Store.Tmpfile {
		w.expect(err, unix.EOPNOTSUPP)
		return
	}
	w.expect(err, 0)
	f := m.newEntry(unix.S_IFREG)
	f.nlink = 0
	w.keep(held{h: h, n: f, unnamed: true})
	w.useHeld(len(w.held) - 1)
}

// linkHeld gives a name to an open file that has one already, or never had.
// One whose names are gone gets none: that answer is the kernel's own.
func (w *walker) linkHeld(p string, m *node, name string) {
	for i := range w.held {
		h := &w.held[i]
		if h.n.nlink == 0 && !h.unnamed {
			continue
		}
		w.last = fmt.Sprintf("link of an open file with %d names to %q", h.n.nlink, p)
		want := unix.Errno(0)
		if m.children[name] != nil {
			want = unix.EEXIST
		}
		if w.expect(h.h.Link(w.fs, p), want) {
			h.n.nlink++
			h.unnamed = false
			m.children[name] = h.n
		}
		return
	}
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
