package bucket

import (
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"io"
	"strconv"
)

// How objects are cut into parts: not at all up to partSize bytes, then into
// parts of that size, and of a larger one where there would be too many.
const (
	partSize = 8 << 20
	maxParts = 10_000
	partStep = 1 << 20 // larger parts are a multiple of that
)

// partSizeOf is how many bytes the parts of an object have; the last may have
// fewer. It depends on the size alone, so that an upload can be resumed.
func partSizeOf(size int64) int64 {
	least := (size + maxParts - 1) / maxParts
	return max(partSize, (least+partStep-1)/partStep*partStep)
}

// Checksum is what Info.Checksum will be after a Put of the first size bytes of
// body, where the store keeps checksums. Errors are those of body.
func Checksum(body io.ReaderAt, size int64) (string, error) {
	s := newSum(size)
	if _, err := io.Copy(s, io.NewSectionReader(body, 0, size)); err != nil {
		return "", err
	}
	if s.written != size {
		return "", io.ErrUnexpectedEOF
	}
	return s.String(), nil
}

// sum computes a checksum: of the whole, or of the checksums of the parts.
type sum struct {
	part    int64     // bytes of each part; 0: it is not in parts
	hash    hash.Hash // of the part that is being written
	inPart  int64     // bytes of it
	parts   hash.Hash // of the checksums of those before
	count   int       // of them
	written int64
}

// newSum is for an object that Put would make.
func newSum(size int64) *sum {
	if size <= partSize {
		return newSumOf(0)
	}
	return newSumOf(partSizeOf(size))
}

// newSumOf is for parts of so many bytes; 0 is no parts.
func newSumOf(part int64) *sum {
	return &sum{part: part, hash: sha256.New(), parts: sha256.New()}
}

func (s *sum) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if s.part != 0 && s.inPart == s.part {
			s.endPart()
		}
		n := len(p)
		if s.part != 0 {
			n = int(min(int64(n), s.part-s.inPart))
		}
		s.hash.Write(p[:n])
		s.inPart += int64(n)
		p = p[n:]
	}
	s.written += int64(all)
	return all, nil
}

func (s *sum) endPart() {
	s.parts.Write(s.hash.Sum(nil))
	s.count++
	s.hash.Reset()
	s.inPart = 0
}

// String is the checksum of what was written, which nothing follows.
func (s *sum) String() string {
	if s.part == 0 {
		return base64.StdEncoding.EncodeToString(s.hash.Sum(nil))
	}
	if s.inPart > 0 {
		s.endPart()
	}
	return base64.StdEncoding.EncodeToString(s.parts.Sum(nil)) + "-" + strconv.Itoa(s.count)
}
