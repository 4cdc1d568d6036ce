package envelope

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"

	"kmsfs/kmsprovider"
)

// The layout of a header, all numbers big-endian (message-header.md):
//
//	version 1                          version 2
//	01 version                    1    02 version                    1
//	80 type                       1
//	algorithm suite               2    algorithm suite               2
//	message ID                   16    message ID                   32
//	encryption context, u16-prefixed   encryption context, u16-prefixed
//	number of encrypted data keys 2    number of encrypted data keys 2
//	provider, info, ciphertext         provider, info, ciphertext
//	  of each, u16-prefixed              of each, u16-prefixed
//	content type                  1    content type                  1
//	reserved, zeros               4
//	IV length, 12                 1
//	frame length                  4    frame length                  4
//	                                   commitment                   32
//	IV                           12
//	tag                          16    tag                          16
const (
	typeAuthenticated = 0x80
	contentNonFramed  = 1
	contentFramed     = 2

	nonceSize      = 12
	tagSize        = 16
	commitmentSize = 32
)

// maxHeader is the longest header that is read, in bytes: the most keys that a message can have fit, if none of them takes
// over half a KiB, which is twice what one of a KMS takes.
const maxHeader = 32 << 20

// Header is the head of a message, as parsed or as written. What ParseHeader returns, and what comes beside an error,
// is not authenticated.
type Header struct {
	Version     int                 // 1 or 2
	Suite       Suite               //
	MessageID   []byte              // 16 bytes in version 1, 32 in version 2
	Context     kmsprovider.Context // the stored part
	Keys        []EncryptedDataKey  // at least one
	FrameLength int                 // bytes of plaintext in every frame but the last; 0: the body is not framed
	Commitment  []byte              // 32 bytes, nil in version 1
	Body        []byte              // what is authenticated: the header's bytes without IV and Tag
	IV          []byte              // 12 bytes; in version 2 not stored, and all zeros
	Tag         []byte              // 16 bytes
}

// ParseHeader reads a message's header and nothing after it. Nothing in it is authenticated: for inspection.
// maxDataKeys caps the wrapped data keys (0: no cap). Errors: ErrMalformed, ErrTooManyKeys, ErrTooLarge, those of r.
func ParseHeader(r io.Reader, maxDataKeys int) (*Header, error) {
	p := headerParser{r: r}
	h := p.header(maxDataKeys)
	if p.err != nil {
		return nil, fmt.Errorf("read header: %w", p.err)
	}
	return h, nil
}

// stored returns what stands in the message: Body and, after it, IV and Tag as far as the version has them.
func (h *Header) stored() []byte {
	b := append([]byte(nil), h.Body...)
	if h.Version == 1 {
		b = append(b, h.IV...)
	}
	return append(b, h.Tag...)
}

// marshalBody writes Body of a version 2 header from the other fields. ErrContext or ErrMalformed for what does not fit.
func (h *Header) marshalBody() ([]byte, error) {
	ec, err := serializeContext(h.Context)
	if err != nil {
		return nil, err
	}
	b := []byte{2}
	b = binary.BigEndian.AppendUint16(b, uint16(h.Suite))
	b = append(b, h.MessageID...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(ec)))
	b = append(b, ec...)
	if b, err = appendKeys(b, h.Keys); err != nil {
		return nil, err
	}
	contentType := byte(contentFramed)
	if h.FrameLength == 0 {
		contentType = contentNonFramed
	}
	b = append(b, contentType)
	b = binary.BigEndian.AppendUint32(b, uint32(h.FrameLength))
	return append(b, h.Commitment...), nil
}

func appendKeys(b []byte, keys []EncryptedDataKey) ([]byte, error) {
	if len(keys) < 1 || len(keys) > math.MaxUint16 {
		return nil, malformed("encrypted data keys", "%d, not 1 to %d", len(keys), math.MaxUint16)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(keys)))
	for i, k := range keys {
		for _, part := range [][]byte{[]byte(k.Provider), k.Info, k.Ciphertext} {
			if len(part) > math.MaxUint16 {
				return nil, malformed("encrypted data keys", "key %d has a part of %d bytes, at most %d", i+1, len(part), math.MaxUint16)
			}
			b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
			b = append(b, part...)
		}
	}
	return b, nil
}

// headerParser reads the fields of a header, and no byte more. After its first error it reads nothing.
type headerParser struct {
	r   io.Reader
	raw []byte // all that was read
	err error
}

func (p *headerParser) header(maxDataKeys int) *Header {
	h := &Header{Version: p.version()}
	if h.Version == 1 {
		if t := p.uint(1, "message type"); t != typeAuthenticated {
			p.fail("message type", "0x%02x, want 0x%02x", t, typeAuthenticated)
		}
	}
	h.Suite = Suite(p.uint(2, "algorithm suite"))
	if !h.Suite.Valid() {
		p.fail("algorithm suite", "0x%04x is unknown", uint16(h.Suite))
	} else if h.Suite.Commits() != (h.Version == 2) {
		p.fail("algorithm suite", "%s is not one of message format version %d", h.Suite, h.Version)
	}
	h.MessageID = p.take(h.Version*16, "message ID")
	if ec, err := parseContext(p.prefixed("encryption context")); err != nil {
		p.keep(err)
	} else {
		h.Context = ec
	}
	h.Keys = p.keys(maxDataKeys)
	contentType := p.uint(1, "content type")
	if contentType != contentFramed && contentType != contentNonFramed {
		p.fail("content type", "%d, want %d or %d", contentType, contentNonFramed, contentFramed)
	}
	if h.Version == 1 {
		if n := p.uint(4, "reserved field"); n != 0 {
			p.fail("reserved field", "0x%08x, want zeros", n)
		}
		if n := p.uint(1, "IV length"); n != nonceSize {
			p.fail("IV length", "%d, want %d", n, nonceSize)
		}
	}
	h.FrameLength = int(p.uint(4, "frame length"))
	if framed := contentType == contentFramed; framed != (h.FrameLength > 0) {
		p.fail("frame length", "%d with content type %d", h.FrameLength, contentType)
	}
	if h.Suite.Commits() {
		h.Commitment = p.take(commitmentSize, "commitment")
	}
	h.Body = p.raw[:len(p.raw):len(p.raw)]
	h.IV = make([]byte, nonceSize)
	if h.Version == 1 {
		h.IV = p.take(nonceSize, "header IV")
	}
	h.Tag = p.take(tagSize, "header tag")
	return h
}

func (p *headerParser) version() int {
	v := int(p.uint(1, "version"))
	switch {
	case v == 1 || v == 2:
	case v == 'A': // 0x01 and 0x02 begin with A in base64
		p.fail("version", `"A" is none, but base64 text of a message begins so: decode it first`)
	default:
		p.fail("version", "%d is none that is known, so this is no message of the AWS Encryption SDK", v)
	}
	return v
}

func (p *headerParser) keys(maxDataKeys int) []EncryptedDataKey {
	count := int(p.uint(2, "number of encrypted data keys"))
	switch {
	case p.err != nil:
		return nil
	case count == 0:
		p.fail("number of encrypted data keys", "0")
	case maxDataKeys > 0 && count > maxDataKeys:
		p.keep(fmt.Errorf("%d encrypted data keys, at most %d are allowed: %w", count, maxDataKeys, ErrTooManyKeys))
	}
	var keys []EncryptedDataKey
	for i := 0; i < count && p.err == nil; i++ {
		k := EncryptedDataKey{
			Provider:   string(p.prefixed("provider of an encrypted data key")),
			Info:       p.prefixed("provider information of an encrypted data key"),
			Ciphertext: p.prefixed("ciphertext of an encrypted data key"),
		}
		if !utf8.ValidString(k.Provider) {
			p.fail("provider of an encrypted data key", "%q is not UTF-8", k.Provider)
		}
		if p.err != nil {
			p.err = fmt.Errorf("encrypted data key %d of %d: %w", i+1, count, p.err)
		}
		keys = append(keys, k)
	}
	return keys
}

// take reads n bytes; they are the caller's.
func (p *headerParser) take(n int, field string) []byte {
	if p.err != nil {
		return nil
	}
	if len(p.raw)+n > maxHeader {
		p.keep(fmt.Errorf("%s: header of over %d bytes: %w", field, maxHeader, ErrTooLarge))
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.r, b); err != nil {
		p.keep(truncated(field, err))
		return nil
	}
	p.raw = append(p.raw, b...)
	return b
}

// uint reads a number of up to 4 bytes.
func (p *headerParser) uint(size int, field string) (n uint32) {
	for _, b := range p.take(size, field) {
		n = n<<8 | uint32(b)
	}
	return n
}

// prefixed reads bytes that stand after their length, a u16.
func (p *headerParser) prefixed(field string) []byte {
	return p.take(int(p.uint(2, field)), field)
}

func (p *headerParser) fail(field, format string, args ...any) {
	p.keep(malformed(field, format, args...))
}

func (p *headerParser) keep(err error) {
	if p.err == nil {
		p.err = err
	}
}

// truncated is the error for a field that could not be read in full: malformed, unless the reader failed.
func truncated(field string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed(field, "the message ends within it")
	}
	return fmt.Errorf("read %s: %w", field, err)
}
