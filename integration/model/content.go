package model

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

func (w *walker) size() int {
	sizes := []int{0, 1, 4095, 4096, 4097, 8192, 5000, 12288, 100, 40000, 140000}
	return sizes[w.rng.IntN(len(sizes))]
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

// pattern is n bytes that depend on seed and repeat nowhere near.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*31 + byte(i>>8)*17 + seed
	}
	return b
}
