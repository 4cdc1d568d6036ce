package model

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"
)

// Handle is an open file.
type Handle interface {
	WriteAt(data []byte, off int64) (int, error)
	ReadAt(dest []byte, off int64) (int, error)
	Truncate(size int64) error
	Close() error
}

// held is an open file, whatever became of its names.
type held struct {
	h Handle
	n *node
}

const maxHeld = 6

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
