package envelope

import (
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// appendFooter signs a digest: a u16 length, and the signature in DER. Specification: message-footer.md.
func appendFooter(b []byte, key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
	if err != nil {
		return nil, fmt.Errorf("sign message: %w", err)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(signature)))
	return append(b, signature...), nil
}

// readFooter returns the signature. A footer that is cut short is an ErrSignature, too.
func readFooter(src io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(src, size[:]); err != nil {
		return nil, footerError("length of the signature", err)
	}
	signature := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(src, signature); err != nil {
		return nil, footerError("signature", err)
	}
	return signature, nil
}

func footerError(field string, err error) error {
	err = truncated(field, err)
	if errors.Is(err, ErrMalformed) {
		return fmt.Errorf("footer: %w: %w", ErrSignature, err)
	}
	return fmt.Errorf("footer: %w", err)
}

// endOfMessage is an error unless src ends here.
func endOfMessage(src io.Reader) error {
	var one [1]byte
	switch _, err := io.ReadFull(src, one[:]); err {
	case io.EOF:
		return nil
	case nil:
		return malformed("end of the message", "more bytes follow")
	default:
		return fmt.Errorf("read end of the message: %w", err)
	}
}
