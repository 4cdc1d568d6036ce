package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"kmsfs/crypto"
)

// A sealed manifest:
//
//	0   8  "kmsfsman"
//	8   1  version 1, and 7 zeros
//	16  16 volume ID
//	32  16 manifest ID
//	48  8  generation
//	56  …  chunks of 65,536 bytes, the last one shorter or not, each with 40 more
const (
	manifestMagic   = "kmsfsman\x01\x00\x00\x00\x00\x00\x00\x00"
	manifestHead    = len(manifestMagic) + 2*len(crypto.ID{}) + 8
	sealedChunkSize = crypto.ManifestChunkSize + crypto.NonceSize + crypto.TagSize
)

// sealer writes a manifest, sealed.
type sealer struct {
	w      io.Writer
	cipher *crypto.ManifestCipher
	random io.Reader
	at     crypto.ManifestChunk
	plain  []byte
	sealed []byte
}

func newSealer(w io.Writer, cipher *crypto.ManifestCipher, random io.Reader, volume crypto.ID, generation uint64) (*sealer, error) {
	id, err := crypto.NewID(random)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 0, manifestHead)
	head = append(head, manifestMagic...)
	head = append(head, volume[:]...)
	head = append(head, id[:]...)
	head = binary.LittleEndian.AppendUint64(head, generation)
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	return &sealer{w: w, cipher: cipher, random: random, at: crypto.ManifestChunk{Manifest: id, Generation: generation}}, nil
}

// Write never leaves a full chunk behind that could be the last.
func (s *sealer) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		if len(s.plain) == crypto.ManifestChunkSize {
			if err := s.flush(); err != nil {
				return n, err
			}
		}
		take := min(len(b), crypto.ManifestChunkSize-len(s.plain))
		s.plain = append(s.plain, b[:take]...)
		b = b[take:]
		n += take
	}
	return n, nil
}

// Close seals what is left as the last chunk.
func (s *sealer) Close() error {
	s.at.Last = true
	return s.flush()
}

func (s *sealer) flush() (err error) {
	if s.sealed, err = s.cipher.Seal(s.sealed[:0], s.random, s.plain, s.at); err != nil {
		return err
	}
	clear(s.plain)
	s.plain = s.plain[:0]
	s.at.Index++
	_, err = s.w.Write(s.sealed)
	return err
}

// opener reads one; what it returns is authenticated, and io.EOF only comes after
// the last chunk.
type opener struct {
	r      *bufio.Reader
	cipher *crypto.ManifestCipher
	at     crypto.ManifestChunk
	sealed []byte
	plain  []byte
	rest   []byte
}

// newOpener reads the beginning of a manifest that is to be of this volume and
// generation; 0 takes any. ErrManifest if it is not.
func newOpener(r io.Reader, cipher *crypto.ManifestCipher, volume crypto.ID, generation uint64) (*opener, error) {
	o := &opener{r: bufio.NewReaderSize(r, sealedChunkSize+1), cipher: cipher}
	var head [manifestHead]byte
	if _, err := io.ReadFull(o.r, head[:]); err != nil {
		return nil, cutShort(err)
	}
	b := head[:]
	if string(b[:len(manifestMagic)]) != manifestMagic {
		return nil, fmt.Errorf("it does not begin as one of this version: %w", ErrManifest)
	}
	b = b[len(manifestMagic):]
	if got := crypto.ID(b[:16]); got != volume {
		return nil, fmt.Errorf("it is of volume %s: %w", got, ErrManifest)
	}
	o.at.Manifest = crypto.ID(b[16:32])
	o.at.Generation = binary.LittleEndian.Uint64(b[32:])
	if generation != 0 && o.at.Generation != generation {
		return nil, fmt.Errorf("it is that of generation %d, put in the place of another: %w", o.at.Generation, ErrManifest)
	}
	return o, nil
}

func (o *opener) Read(b []byte) (int, error) {
	for len(o.rest) == 0 {
		if o.at.Last {
			return 0, io.EOF
		}
		if err := o.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, o.rest)
	o.rest = o.rest[n:]
	return n, nil
}

func (o *opener) next() error {
	if o.sealed == nil {
		o.sealed = make([]byte, sealedChunkSize)
	}
	n, err := io.ReadFull(o.r, o.sealed)
	switch {
	case err == nil:
		_, err = o.r.Peek(1)
		o.at.Last = err == io.EOF
		if err != nil && err != io.EOF {
			return err
		}
	case err == io.ErrUnexpectedEOF:
		o.at.Last = true
	default:
		return cutShort(err)
	}
	if o.plain, err = o.cipher.Open(o.plain[:0], o.sealed[:n], o.at); err != nil {
		return fmt.Errorf("chunk %d of it is changed, or cut off: %w", o.at.Index, ErrManifest)
	}
	o.rest = o.plain
	o.at.Index++
	return nil
}

func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is cut short: %w", ErrManifest)
	}
	return err
}
