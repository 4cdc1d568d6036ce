package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sparseFile is one round with a file that is mostly holes. Times are in
// milliseconds.
type sparseFile struct {
	Subject  string  `json:"subject"`
	Size     int64   `json:"bytes"`
	Write    float64 `json:"write_ms"`     // at both ends, and in the middle; synced
	Read     float64 `json:"read_ms"`      // the same again, cold
	ReadHole float64 `json:"read_hole_ms"` // 1 MiB where nothing was written
	Seek     float64 `json:"seek_ms"`      // from data to hole to data, to the end
	Truncate float64 `json:"truncate_ms"`  // to a quarter
	Stored   int64   `json:"stored_kib"`   // what it takes up, before that
}

// crowd is one round with programs that work at the same time.
type crowd struct {
	Subject   string  `json:"subject"`
	Clients   int     `json:"clients"`
	PerSecond float64 `json:"operations_per_second"` // create and write, read, unlink: three
}

const (
	sparseSize     = 100 << 30
	crowdSize      = 64
	crowdFiles     = 50 // of each client
	crowdFileBytes = 4096
)

// growElsewhere measures a large file and many clients.
func (m *matrix) growElsewhere(ctx context.Context, t subject) (f sparseFile, crowds []crowd, err error) {
	p, err := newPlace(m.backing, m.in.stage, t.store+"-large")
	if err != nil {
		return f, nil, err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	if err := t.make(ctx, p); err != nil {
		return f, nil, err
	}
	f = sparseFile{Subject: t.name, Size: sparseSize}
	if err := m.mounted(ctx, t, p, new(usage), f.writeEnds); err != nil {
		return f, nil, fmt.Errorf("a large file: %w", err)
	}
	if err := m.mounted(ctx, t, p, new(usage), f.use); err != nil {
		return f, nil, fmt.Errorf("a large file: %w", err)
	}
	for _, clients := range []int{1, crowdSize} {
		c := crowd{Subject: t.name, Clients: clients}
		if err := m.mounted(ctx, t, p, new(usage), func(at mount) error { return c.work(ctx, at) }); err != nil {
			return f, nil, fmt.Errorf("%d clients: %w", clients, err)
		}
		crowds = append(crowds, c)
	}
	return f, crowds, nil
}

// written are the places where a sparse file has a block.
func (f *sparseFile) written() []int64 { return []int64{0, f.Size / 2, f.Size - page} }

func (f *sparseFile) block() []byte { return bytes.Repeat([]byte("sparse"), page/6+1)[:page] }

func milliseconds(since time.Time) float64 { return float64(time.Since(since).Microseconds()) / 1000 }

func (f *sparseFile) writeEnds(at mount) error {
	file, err := os.Create(filepath.Join(at.dir(), "sparse"))
	if err != nil {
		return err
	}
	defer file.Close()
	began := time.Now()
	for _, off := range f.written() {
		if _, err := file.WriteAt(f.block(), off); err != nil {
			return err
		}
	}
	err = file.Sync()
	f.Write = milliseconds(began)
	return err
}

func (f *sparseFile) use(at mount) error {
	file, err := os.OpenFile(filepath.Join(at.dir(), "sparse"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	began := time.Now()
	got := make([]byte, page)
	for _, off := range f.written() {
		if _, err := file.ReadAt(got, off); err != nil || !bytes.Equal(got, f.block()) {
			return fmt.Errorf("what was written at %d is not read: %v", off, err)
		}
	}
	f.Read = milliseconds(began)
	began = time.Now()
	hole := make([]byte, 1<<20)
	if _, err := file.ReadAt(hole, f.Size/4); err != nil || len(bytes.Trim(hole, "\x00")) != 0 {
		return fmt.Errorf("a hole is no hole: %v", err)
	}
	f.ReadHole = milliseconds(began)
	began = time.Now()
	extents := 0
	for off := int64(0); off < f.Size; extents++ {
		data, err := unix.Seek(int(file.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err == nil {
			off, err = unix.Seek(int(file.Fd()), data, unix.SEEK_HOLE)
		}
		if err != nil {
			return fmt.Errorf("seek: %w", err)
		}
	}
	f.Seek = milliseconds(began)
	if extents < 1 || extents > len(f.written()) {
		return fmt.Errorf("%d extents of data, want %d", extents, len(f.written()))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return err
	}
	f.Stored = st.Blocks / 2
	began = time.Now()
	err = file.Truncate(f.Size / 4)
	f.Truncate = milliseconds(began)
	return err
}

// work has every client make, read and remove files of its own, in a directory of
// its own.
func (c *crowd) work(ctx context.Context, at mount) error {
	var all sync.WaitGroup
	failures := make([]error, c.Clients)
	began := time.Now()
	for i := range c.Clients {
		all.Go(func() {
			dir := filepath.Join(at.dir(), fmt.Sprintf("%d-of-%d", i, c.Clients))
			failures[i] = os.Mkdir(dir, 0o755)
			for n := 0; n < crowdFiles && failures[i] == nil && ctx.Err() == nil; n++ {
				failures[i] = makeReadRemove(filepath.Join(dir, fmt.Sprint(n)))
			}
		})
	}
	all.Wait()
	c.PerSecond = float64(3*crowdFiles*c.Clients) / time.Since(began).Seconds()
	return errors.Join(append(failures, ctx.Err())...)
}

func makeReadRemove(path string) error {
	content := bytes.Repeat([]byte("x"), crowdFileBytes)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return err
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		return fmt.Errorf("%s has %d bytes, %v", path, len(got), err)
	}
	return os.Remove(path)
}
