package crypto

import (
	"encoding/base64"
	"fmt"
)

// encodeBase64 is unpadded base64url (RFC 4648, section 5).
func encodeBase64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decodeBase64 accepts only what encodeBase64 gives for some bytes: Go's decoder alone would skip line breaks and
// ignore the unused bits of the last character, so that one name had many spellings. ErrMalformed.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || encodeBase64(b) != s {
		return nil, fmt.Errorf("not base64url: %w", ErrMalformed)
	}
	return b, nil
}
