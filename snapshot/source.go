package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// source is a data file as it is sent: its extents, one after the other. It is read
// from several places at once.
type source struct {
	fd     int
	path   string // for messages
	ino    uint64
	gen    uint64 // see volume.InodeOf
	dev    uint64
	file   File // but for the object
	record crypto.Record
}

// errUnsettled: a data file is being changed.
var errUnsettled = errors.New("it is being changed")

// openSource opens the data file at name. lift opens one that its owner may not
// read. The caller closes it.
func openSource(dirfd int, name, path string, st *unix.Statx_t, lift bool) (*source, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK
	fd, err := openat(dirfd, name, flags, 0)
	if err == unix.EACCES && lift && int(st.Uid) == os.Geteuid() {
		mode := uint32(st.Mode) & 0o7777
		var p int
		if p, err = openat(dirfd, name, unix.O_PATH, 0); err == nil {
			defer unix.Close(p)
			if err = chmodOpen(p, mode|0o400); err == nil {
				fd, err = openat(dirfd, name, flags, 0)
				_ = chmodOpen(p, mode)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	s := &source{fd: fd, path: path}
	var now unix.Statx_t
	if err = statx(fd, "", &now); err == nil && now.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.ENOENT // another took its place
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.dev = device(&now)
	s.ino, s.gen = volume.InodeOf(&now)
	return s, nil
}

func (s *source) close() { unix.Close(s.fd) }

// header reads the header. A file that has none yet, or none any more, is
// errUnsettled.
func (s *source) header() (h [crypto.HeaderSize]byte, err error) {
	n, err := readFullAt(s.fd, h[:], 0)
	if err == nil && n < len(h) {
		err = fmt.Errorf("its header is cut short at %d bytes: %w", n, errUnsettled)
	}
	return h, err
}

// look reads what the record says, and checks that it is this file's: errUnsettled
// where the file's length is another. What does not authenticate is ErrIntegrity.
func (s *source) look(a *volume.Access) error {
	h, err := s.header()
	if err != nil {
		return err
	}
	id, rec, err := a.Record(h[:])
	if err != nil {
		return fmt.Errorf("record: %w: %w", err, volume.ErrIntegrity)
	}
	s.record = rec
	s.file = File{
		ID: id, Generation: rec.Generation, Flags: rec.Flags, Size: rec.Size, Stored: rec.Stored, Root: rec.Root, Header: headerSum(h[:]),
	}
	var st unix.Statx_t
	if err := statx(s.fd, "", &st); err != nil {
		return err
	}
	if int64(st.Size) != s.file.CipherSize() {
		return fmt.Errorf("it has %d bytes, and its record says %d: %w", st.Size, s.file.CipherSize(), errUnsettled)
	}
	if rec.Stored < crypto.BlockCount(int64(rec.Size)) {
		s.file.Extents, err = s.extents(int64(st.Size))
	}
	return err
}

// extents are the ranges that the file has data in; nil where that is all of it.
func (s *source) extents(size int64) ([]Extent, error) {
	out := []Extent{}
	for off := int64(0); off < size; {
		from, err := unix.Seek(s.fd, off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err == unix.EINVAL {
			return nil, nil // the store does not tell
		}
		if err != nil {
			return nil, err
		}
		to, err := unix.Seek(s.fd, from, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		to = min(to, size)
		if to <= from {
			break
		}
		out = append(out, Extent{from, to - from})
		off = to
	}
	if len(out) == 1 && out[0] == (Extent{0, size}) {
		return nil, nil
	}
	return out, nil
}

// ReadAt reads the object.
func (s *source) ReadAt(b []byte, off int64) (n int, err error) {
	extents := s.file.Extents
	if extents == nil {
		extents = []Extent{{0, s.file.CipherSize()}}
	}
	for _, x := range extents {
		if off >= x.Length {
			off -= x.Length
			continue
		}
		take := min(int64(len(b)-n), x.Length-off)
		got, err := readFullAt(s.fd, b[n:n+int(take)], x.CipherOff+off)
		n += got
		if err != nil {
			return n, err
		}
		if int64(got) < take {
			return n, fmt.Errorf("%s is shorter than its record says: %w", s.path, errUnsettled)
		}
		if off = 0; n == len(b) {
			return n, nil
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// sum is the SHA-256 of the object.
func (s *source) sum() (sum [32]byte, err error) {
	h := sha256.New()
	b := buffers.Get().(*[copySize]byte)
	defer buffers.Put(b)
	if _, err := io.CopyBuffer(h, onlyReader{io.NewSectionReader(s, 0, s.file.ObjectSize())}, b[:]); err != nil {
		return sum, err
	}
	return [32]byte(h.Sum(nil)), nil
}

// onlyReader hides all that io.Copy would rather use.
type onlyReader struct{ io.Reader }

// readFullAt reads until b is full or the file ends.
func readFullAt(fd int, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := preadSome(fd, b[n:], off+int64(n))
		if err == io.EOF {
			break
		}
		if err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}
