package envelope

import (
	"errors"
	"io"

	"kmsfs/kmsprovider"
)

// Header is the head of a message, as parsed or as written. From ParseHeader nothing in it is authenticated; from
// Encrypt and Decrypt all of it is.
type Header struct {
	Version     int                 // 1 or 2
	Suite       Suite               //
	MessageID   []byte              // 16 bytes in version 1, 32 in version 2
	Context     kmsprovider.Context // the stored part
	Keys        []EncryptedDataKey  //
	FrameLength int                 // bytes of plaintext in every frame but the last; 0: the body is not framed
	Commitment  []byte              // 32 bytes, nil unless Suite.Commits()
	Body        []byte              // what is authenticated: the header's bytes without IV and Tag
	IV          []byte              // 12 bytes; in version 2 not stored, and all zeros
	Tag         []byte              // 16 bytes
}

// ParseHeader reads a message's header and nothing after it. Nothing in it is authenticated: for inspection.
// maxDataKeys caps the wrapped data keys (0: no cap). Errors: ErrMalformed, ErrTooManyKeys, those of r.
func ParseHeader(r io.Reader, maxDataKeys int) (*Header, error) {
	return nil, errors.New("parse header: not written yet")
}
