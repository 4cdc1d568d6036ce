package envelope

import "io"

const (
	sourceSize = 256 << 10 // bytes read at once
	firstGrant = 64 << 10  // the first allocation for bytes that are promised but not there yet
)

// source reads a stream through a buffer that can be wiped. One goroutine at a time uses it.
type source struct {
	r          io.Reader
	buf        []byte
	start, end int   // of what is buffered
	err        error // what r ended with, once it has
}

func newSource(r io.Reader) *source { return &source{r: r} }

// Read is that of io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.start == s.end {
		if err := s.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.buf[s.start:s.end])
	s.start += n
	return n, nil
}

// buffered is how many bytes can be read without waiting.
func (s *source) buffered() int { return s.end - s.start }

// peek returns the next n bytes, at most sourceSize, without taking them. io.EOF if there are none, io.ErrUnexpectedEOF
// if there are fewer. The bytes are good until the next call.
func (s *source) peek(n int) ([]byte, error) {
	if err := s.fill(n); err != nil {
		if err == io.EOF && s.buffered() > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return s.buf[s.start : s.start+n], nil
}

// fill reads until n bytes are buffered.
func (s *source) fill(n int) error {
	if s.buf == nil {
		s.buf = make([]byte, sourceSize)
	}
	if s.start == s.end {
		s.start, s.end = 0, 0
	} else if s.start+n > len(s.buf) {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	for empty := 0; s.buffered() < n; {
		if s.err != nil {
			return s.err
		}
		var got int
		got, s.err = s.r.Read(s.buf[s.end:])
		s.end += got
		if got > 0 {
			empty = 0
		} else if empty++; empty >= 100 && s.err == nil {
			return io.ErrNoProgress
		}
	}
	return nil
}

// extend reads n bytes and appends them to b, as many as there are: fewer only with an error, io.EOF or
// io.ErrUnexpectedEOF at the end of the stream. Where b has no room it grows as the bytes arrive, so that a length in a
// message makes nobody allocate it; what it grows out of is wiped. In the end there is room for a tag, too.
func (s *source) extend(b []byte, n int) ([]byte, error) {
	for read := 0; read < n; {
		if len(b) == cap(b) {
			b = grow(b, min(n-read+tagSize, max(cap(b), firstGrant)))[:len(b)]
		}
		part := b[len(b):min(cap(b), len(b)+n-read)]
		got, err := io.ReadFull(s, part)
		b = b[:len(b)+got]
		read += got
		if err == io.EOF && read > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// grow appends n bytes of any content. What it grows out of is wiped.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) < n {
		grown := make([]byte, len(b), len(b)+n)
		copy(grown, b)
		clear(b[:cap(b)])
		b = grown
	}
	return b[:len(b)+n]
}

// wipe clears what is and was buffered.
func (s *source) wipe() { clear(s.buf) }
