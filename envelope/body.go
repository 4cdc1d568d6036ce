package envelope

import (
	"encoding/binary"
	"fmt"
	"io"
)

// frameWriter turns plaintext into batches to seal.
type frameWriter struct {
	frames
	src  *source
	next uint32 // sequence number
}

// fill is the produce step: a frame, and as many more as can be had without waiting. The final frame is what is left
// at the end, often nothing: official tools refuse one as long as the others.
func (w *frameWriter) fill(b *batch) (more bool) {
	b.first, b.frames = w.next, 0
	buf := b.buf[:0]
	defer func() { b.buf = buf }()
	for n := w.batchFrames(); b.frames < n; b.frames++ {
		if b.frames > 0 && w.src.buffered() < w.length {
			break
		}
		head := frameHead
		if b.frames == 0 {
			head = finalHead // only the first of a batch may turn out to be the last of all
		}
		buf = grow(buf, head)
		var err error
		buf, err = w.src.extend(buf, w.length)
		if err == nil && w.next == maxSequence {
			err = fmt.Errorf("a message has at most %d frames, here of %d bytes: %w", uint32(maxSequence), w.length, ErrTooLarge)
		}
		buf = grow(buf, tagSize)
		switch {
		case err == io.EOF || err == io.ErrUnexpectedEOF:
			b.wire, b.frames, b.final = buf, 1, true
			return false
		case err != nil: // half a message is good for nothing: not even the frames before go out
			b.frames, b.err = 0, fmt.Errorf("read plaintext: %w", err)
			return false
		}
		w.next++
	}
	b.wire = buf[headroom:]
	return true
}

// frameReader cuts a body into batches to open.
type frameReader struct {
	frames
	src  *source
	next uint32 // sequence number
}

// fill is the produce step: a frame, and as many more as can be had without waiting; the final frame alone.
func (r *frameReader) fill(b *batch) (more bool) {
	b.first, b.frames = r.next, 0
	b.buf = b.buf[:0]
	for n := r.batchFrames(); b.frames < n; b.frames++ {
		if b.frames > 0 && r.src.buffered() < r.wireLength() {
			break
		}
		mark, err := r.src.peek(4)
		if err != nil {
			b.err = r.wrap(truncated("sequence number", err))
			return false
		}
		sequence := binary.BigEndian.Uint32(mark)
		if sequence == finalMark && b.frames > 0 {
			break
		}
		if sequence == finalMark {
			b.err = r.final(b)
			return false
		}
		if sequence != r.next {
			b.err = r.wrap(malformed("sequence number", "%d is out of order", sequence))
			return false
		}
		whole := len(b.buf)
		if b.buf, err = r.src.extend(b.buf, r.wireLength()); err != nil {
			b.err = r.wrap(truncated(r.field(len(b.buf)-whole), err))
			return false
		}
		b.wire = b.buf
		r.next++ // up to maxSequence, which only a final frame can have
	}
	return true
}

// field names what stands after so many bytes of a frame.
func (r *frameReader) field(at int) string {
	switch {
	case at < frameHead:
		return "IV"
	case at < frameHead+r.length:
		return "ciphertext"
	}
	return "tag"
}

func (r *frameReader) final(b *batch) (err error) {
	if b.buf, err = r.src.extend(b.buf, finalHead); err != nil {
		return r.wrap(truncated("head of the final frame", err))
	}
	if sequence := binary.BigEndian.Uint32(b.buf[4:]); sequence != r.next {
		return r.wrap(malformed("sequence number", "%d of the final frame is out of order", sequence))
	}
	n := binary.BigEndian.Uint32(b.buf[finalHead-4:])
	if uint64(n) > uint64(r.length) {
		return r.wrap(malformed("length of the final frame", "%d bytes, at most the frame length of %d", n, r.length))
	}
	if b.buf, err = r.src.extend(b.buf, int(n)+tagSize); err != nil {
		return r.wrap(truncated("final frame", err))
	}
	b.wire, b.frames, b.final = b.buf, 1, true
	return nil
}

func (r *frameReader) wrap(err error) error { return fmt.Errorf("frame %d: %w", r.next, err) }
