package envelope

import (
	"context"
	"crypto/cipher"
	"crypto/ecdsa"
	"fmt"
	"hash"
	"io"

	"kmsfs/kmsprovider"
)

// DefaultMaxFrameLength is the longest frame that is read, in bytes, unless the caller says otherwise. A frame has to be
// in memory whole before any of it may be released.
const DefaultMaxFrameLength = 64 << 20

// DecryptOptions say what is demanded of a message.
type DecryptOptions struct {
	Keyring Keyring
	Policy  CommitmentPolicy
	// Context holds pairs that must be equal; those that the message does not store take part in authentication.
	Context        kmsprovider.Context
	ContextKeys    []string // keys that must be present
	MaxDataKeys    int      // 0: no cap
	RefuseSigned   bool     // signed messages are ErrSigned
	Workers        int      // 0: GOMAXPROCS
	MaxFrameLength int      // bytes, also of a body that is not framed and not Provisional; 0: DefaultMaxFrameLength
	// Provisional says that what was written to dst is thrown away unless Decrypt returns nil: a temporary file. The
	// plaintext of a body that is not framed may then go there before its tag is verified. Otherwise such a body is
	// held in memory, if it is no longer than MaxFrameLength.
	Provisional bool
	Progress    func(ciphertext int64)
}

// Decrypt reads one message, of either format version, from src and writes its plaintext to dst. Memory is a few frames
// for each worker.
//
// Nothing is written that was not authenticated with the data key (but see Provisional). Frames are written as they
// come, and the last one, like a body that is not framed, only when the end of the message is known to be right: the
// signature, if it has one, and nothing after it. What a signed message's earlier frames brought is not known to come
// from its signer until Decrypt returns nil.
//
// The header is returned whenever it could be read, also beside an error; it is authentic only without one. Progress is
// told the bytes of the message done so far, from one goroutine at a time. When ctx ends, Decrypt returns even if src
// does not: a Read may then still be under way.
//
// Errors: ErrMalformed, ErrNotAuthentic, ErrSignature, ErrSigned, ErrCommitmentPolicy, ErrContext, ErrNoKey,
// ErrTooManyKeys, ErrTooLarge (over MaxFrameLength), those of src and of dst.
func Decrypt(ctx context.Context, dst io.Writer, src io.Reader, o DecryptOptions) (*Header, error) {
	if o.MaxFrameLength <= 0 {
		o.MaxFrameLength = DefaultMaxFrameLength
	}
	d := decryption{o: o, dst: dst, src: newSource(src)}
	h, err := ParseHeader(d.src, o.MaxDataKeys)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	d.header = h
	if err := d.openHeader(ctx); err != nil {
		return h, fmt.Errorf("decrypt: %w", err)
	}
	body := d.readFrames
	if h.FrameLength == 0 {
		body = d.readNonFramed
	}
	if err := body(ctx); err != nil {
		return h, fmt.Errorf("decrypt: %w", err)
	}
	return h, nil
}

// decryption is one run of Decrypt.
type decryption struct {
	o      DecryptOptions
	dst    io.Writer
	src    *source
	header *Header
	block  cipher.Block
	aead   cipher.AEAD
	done   int64 // bytes of the message

	hash      hash.Hash // of all that is signed; nil if nothing is, like the next two
	verifyKey *ecdsa.PublicKey
	signature []byte
}

// openHeader gets the data key and authenticates the header.
func (d *decryption) openHeader(ctx context.Context) error {
	h := d.header
	if d.o.RefuseSigned && h.Suite.Signed() {
		return fmt.Errorf("algorithm suite %s: %w", h.Suite, ErrSigned)
	}
	if h.FrameLength > d.o.MaxFrameLength {
		return fmt.Errorf("frame length of %d bytes, at most %d are allowed: %w", h.FrameLength, d.o.MaxFrameLength, ErrTooLarge)
	}
	m, err := decryptionMaterials(ctx, h, d.o)
	if err != nil {
		return err
	}
	defer m.Wipe()
	_, required, err := splitContext(m.Context, m.RequiredKeys)
	if err != nil {
		return err
	}
	if d.block, d.aead, err = openHeader(h, m.DataKey, required); err != nil {
		return err
	}
	head := h.stored()
	d.done = int64(len(head))
	if d.hash = h.Suite.signatureHash(); d.hash != nil {
		d.hash.Write(head)
		d.verifyKey = m.VerifyKey
	}
	return nil
}

func (d *decryption) readFrames(ctx context.Context) error {
	r := frameReader{frames: frames{aead: d.aead, messageID: d.header.MessageID, length: d.header.FrameLength}, src: d.src, next: 1}
	fill := func(b *batch) bool {
		more := r.fill(b)
		if b.final {
			b.err = d.end()
		}
		return more
	}
	p := pipeline{produce: fill, work: r.open, consume: d.consumeFrames}
	p.workers, p.batches = sizePipeline(d.o.Workers, max(batchSize, r.wireLength()))
	return d.run(ctx, p)
}

// run adds the signature to a pipeline: what is signed is the ciphertext, so it is hashed before it is opened in place.
func (d *decryption) run(ctx context.Context, p pipeline) error {
	if d.hash != nil {
		p.before = func(b *batch) { d.hash.Write(b.wire) }
	}
	p.finish = d.src.wipe
	return p.run(ctx)
}

// consumeFrames writes what is authentic of a batch, the final frame only at the right end of a message.
func (d *decryption) consumeFrames(b *batch) error {
	if b.final && b.err == nil {
		b.err = d.verify()
	}
	if b.final && b.err != nil {
		return b.err
	}
	if err := d.write(b.plain); err != nil {
		return err
	}
	d.progress(b)
	return nil
}

// end reads what stands after the body.
func (d *decryption) end() (err error) {
	if d.hash != nil {
		if d.signature, err = readFooter(d.src); err != nil {
			return err
		}
	}
	return endOfMessage(d.src)
}

// verify checks the signature, when the whole body went through the hash.
func (d *decryption) verify() error {
	if d.hash != nil && !ecdsa.VerifyASN1(d.verifyKey, d.hash.Sum(nil), d.signature) {
		return fmt.Errorf("footer: %w", ErrSignature)
	}
	return nil
}

func (d *decryption) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if _, err := d.dst.Write(b); err != nil {
		return fmt.Errorf("write plaintext: %w", err)
	}
	return nil
}

func (d *decryption) progress(b *batch) {
	d.done += int64(len(b.wire))
	if b.final && d.hash != nil {
		d.done += int64(2 + len(d.signature))
	}
	if d.o.Progress != nil {
		d.o.Progress(d.done)
	}
}
