package envelope

import (
	"context"
	"crypto/rand"
	"fmt"
	"hash"
	"io"
	"maps"

	"kmsfs/kmsprovider"
)

// DefaultFrameLength is the plaintext of a frame, in bytes.
const DefaultFrameLength = 64 << 10

// EncryptOptions say how a message is made.
type EncryptOptions struct {
	Keyring             Keyring
	Suite               Suite               // 0: SuiteCommitSigned
	Policy              CommitmentPolicy    //
	Context             kmsprovider.Context // whole, the required pairs among it
	RequiredContextKeys []string            // of Context: authenticated, not stored in the message
	FrameLength         int                 // bytes, up to DefaultMaxFrameLength; 0: DefaultFrameLength
	MaxDataKeys         int                 // 0: no cap but the format's
	Workers             int                 // 0: GOMAXPROCS
	Progress            func(plaintext int64)
}

// Encrypt reads src to its end and writes it to dst as one message of format version 2. The header that it returns is
// the one written. What dst holds after an error is no message. Memory is a few frames for each worker.
//
// Progress is told the bytes of plaintext done so far, from one goroutine at a time. When ctx ends, Encrypt returns
// even if src does not: a Read may then still be under way.
//
// Errors: ErrCommitmentPolicy, ErrContext, ErrTooManyKeys, ErrTooLarge (over 2³²-1 frames), those of the keyring, of
// src and of dst.
func Encrypt(ctx context.Context, dst io.Writer, src io.Reader, o EncryptOptions) (*Header, error) {
	if o.Suite == 0 {
		o.Suite = SuiteCommitSigned
	}
	if o.FrameLength == 0 {
		o.FrameLength = DefaultFrameLength
	}
	if o.FrameLength < 0 || o.FrameLength > DefaultMaxFrameLength {
		return nil, fmt.Errorf("encrypt: frame length of %d bytes, not 1 to %d: %w", o.FrameLength, DefaultMaxFrameLength, ErrTooLarge)
	}
	m, err := encryptionMaterials(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	defer m.Wipe()
	e := encryption{o: o, dst: dst, src: newSource(src), hash: m.Suite.signatureHash()}
	if err := e.writeHeader(m); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := e.writeBody(ctx); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	if err := e.writeFooter(m); err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return e.header, nil
}

// encryption is one run of Encrypt.
type encryption struct {
	o      EncryptOptions
	dst    io.Writer
	src    *source
	header *Header
	frames frames
	hash   hash.Hash // of all that is signed; nil if nothing is
	done   int64     // bytes of plaintext
}

func (e *encryption) writeHeader(m *EncryptionMaterials) error {
	stored, required, err := splitContext(m.Context, m.RequiredKeys)
	if err != nil {
		return err
	}
	h := &Header{Version: 2, Suite: m.Suite, MessageID: make([]byte, 32), Context: stored, Keys: m.Keys, FrameLength: e.o.FrameLength}
	if _, err := rand.Read(h.MessageID); err != nil {
		return fmt.Errorf("draw message ID: %w", err)
	}
	aead, err := sealHeader(h, m.DataKey, required)
	if err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	e.header = h
	e.frames = frames{aead: aead, messageID: h.MessageID, length: h.FrameLength}
	b := h.stored()
	if e.hash != nil {
		e.hash.Write(b)
	}
	return e.write(b)
}

func (e *encryption) writeBody(ctx context.Context) error {
	w := frameWriter{frames: e.frames, src: e.src, next: 1}
	p := pipeline{produce: w.fill, work: w.seal, consume: e.consume, finish: e.src.wipe}
	p.workers, p.batches = sizePipeline(e.o.Workers, max(batchSize, w.wireLength()))
	if e.hash != nil {
		p.after = func(b *batch) { e.hash.Write(b.wire) }
	}
	return p.run(ctx)
}

func (e *encryption) consume(b *batch) error {
	if err := e.write(b.wire); err != nil {
		return err
	}
	if b.final {
		e.done += int64(len(b.wire) - finalHead - tagSize)
	} else {
		e.done += int64(b.frames) * int64(e.frames.length)
	}
	if e.o.Progress != nil {
		e.o.Progress(e.done)
	}
	return nil
}

func (e *encryption) writeFooter(m *EncryptionMaterials) error {
	if e.hash == nil {
		return nil
	}
	b, err := appendFooter(nil, m.SigningKey, e.hash.Sum(nil))
	if err != nil {
		return err
	}
	return e.write(b)
}

func (e *encryption) write(b []byte) error {
	if _, err := e.dst.Write(b); err != nil {
		return fmt.Errorf("write message: %w", err)
	}
	return nil
}

// splitContext parts the pairs that a message stores from the required ones, which it only authenticates. The latter
// come serialized.
func splitContext(all kmsprovider.Context, requiredKeys []string) (stored kmsprovider.Context, required []byte, err error) {
	stored = maps.Clone(all)
	apart := make(kmsprovider.Context)
	for _, k := range requiredKeys {
		v, ok := all[k]
		if !ok {
			return nil, nil, fmt.Errorf("required key %q is not in the encryption context: %w", k, ErrContext)
		}
		apart[k] = v
		delete(stored, k)
	}
	required, err = serializeContext(apart)
	return stored, required, err
}
