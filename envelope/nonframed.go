package envelope

import (
	"context"
	"encoding/binary"
	"fmt"
)

// pieceSize is how much of a body that is not framed is handled together: whole blocks of AES.
const pieceSize = 1 << 20

// nonFramed is a body that is not framed on its way through a pipeline. Official tools write such bodies if they are
// told to; we do not.
type nonFramed struct {
	d      *decryption
	stream *gcmStream
	left   uint64 // bytes of ciphertext
	tag    []byte
	held   [][]byte // plaintext that must not go out before it is verified
}

// readNonFramed decrypts in pieces. They go out at once if dst is provisional, else when all is verified.
func (d *decryption) readNonFramed(ctx context.Context) error {
	head, err := d.src.extend(nil, nonFramedHead)
	if err != nil {
		return truncated("IV and length of the body", err)
	}
	n := binary.BigEndian.Uint64(head[nonceSize:])
	if n > maxNonFramed {
		return malformed("length of the body", "%d bytes, at most %d", n, uint64(maxNonFramed))
	}
	if !d.o.Provisional && n > uint64(d.o.MaxFrameLength) {
		return fmt.Errorf("body of %d bytes that is not framed, of which at most %d are held in memory until they are verified: %w",
			n, d.o.MaxFrameLength, ErrTooLarge)
	}
	if d.hash != nil {
		d.hash.Write(head)
	}
	d.done += nonFramedHead
	aad := appendBodyAAD(nil, d.header.MessageID, purposeNonFramed, 1, int(n))
	b := &nonFramed{d: d, stream: newGCMStream(d.block, d.aead, head[:nonceSize], aad), left: n}
	defer b.wipe()
	_, batches := sizePipeline(1, pieceSize)
	return d.run(ctx, pipeline{workers: 1, batches: batches, produce: b.fill, work: b.open, consume: b.consume})
}

func (p *nonFramed) fill(b *batch) (more bool) {
	n := min(p.left, pieceSize)
	p.left -= n
	b.final = p.left == 0
	var err error
	if b.buf, err = p.d.src.extend(b.buf[:0], int(n)); err != nil {
		b.err = truncated("ciphertext of the body", err)
		return false
	}
	b.plain = b.buf
	if b.final {
		if b.buf, err = p.d.src.extend(b.buf, tagSize); err != nil {
			b.err, b.plain = truncated("tag of the body", err), nil
			return false
		}
		b.plain, p.tag = b.buf[:n], b.buf[n:]
		b.err = p.d.end()
	}
	b.wire = b.buf
	return !b.final
}

func (p *nonFramed) open(b *batch) error {
	p.stream.open(b.plain)
	if b.final && p.tag != nil && !p.stream.verify(p.tag) {
		return fmt.Errorf("tag of the body: %w", ErrNotAuthentic)
	}
	return nil
}

func (p *nonFramed) consume(b *batch) error {
	if b.err == nil && b.final {
		b.err = p.d.verify()
	}
	if b.err != nil {
		return b.err
	}
	if !p.d.o.Provisional {
		p.held = append(p.held, append([]byte(nil), b.plain...))
	} else if err := p.d.write(b.plain); err != nil {
		return err
	}
	for ; b.final && len(p.held) > 0; p.held = p.held[1:] {
		if err := p.d.write(p.held[0]); err != nil {
			return err
		}
		clear(p.held[0])
	}
	p.d.progress(b)
	return nil
}

func (p *nonFramed) wipe() {
	for _, b := range p.held {
		clear(b)
	}
}
