package envelope

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
)

// Whatever is peeked at, read and appended in between, every byte comes once and in order.
func TestSourceGivesTheStreamAsItIs(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	stream := text(5 * sourceSize)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(stream),
		"half":  iotest.HalfReader(bytes.NewReader(stream)),
	} {
		s := newSource(r)
		var got []byte
		for len(got) < len(stream) {
			left := len(stream) - len(got)
			n := rng.IntN(left + 5)
			if rng.IntN(3) > 0 {
				n = rng.IntN(50)
			}
			switch rng.IntN(3) {
			case 0:
				n = min(n, sourceSize)
				b, err := s.peek(n)
				switch {
				case n <= left && (err != nil || !bytes.Equal(b, stream[len(got):][:n])):
					t.Fatalf("%s: peek at %d of %d: %v", name, n, left, err)
				case n > left && err != io.ErrUnexpectedEOF:
					t.Fatalf("%s: peek at %d of %d: %v", name, n, left, err)
				}
			case 1:
				b := make([]byte, n)
				n, err := s.Read(b)
				if err != nil {
					t.Fatalf("%s: read: %v", name, err)
				}
				got = append(got, b[:n]...)
			case 2:
				b, err := s.extend([]byte("x"), n)
				if n <= left && (err != nil || len(b) != n+1) || n > left && (err != io.ErrUnexpectedEOF || len(b) != left+1) || b[0] != 'x' {
					t.Fatalf("%s: extend by %d of %d: %d bytes, %v", name, n, left, len(b), err)
				}
				got = append(got, b[1:]...)
			}
		}
		if !bytes.Equal(got, stream) {
			t.Errorf("%s: not the stream", name)
		}
		if _, err := s.peek(1); err != io.EOF {
			t.Errorf("%s: peek at the end: %v", name, err)
		}
		if _, err := s.extend(nil, 1); err != io.EOF {
			t.Errorf("%s: extend at the end: %v", name, err)
		}
	}
}

// idleReader returns nothing, without an error.
type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestAReaderThatNeverGivesAnythingIsGivenUp(t *testing.T) {
	if _, err := newSource(idleReader{}).Read(make([]byte, 1)); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}
