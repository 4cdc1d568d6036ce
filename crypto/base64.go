package crypto

import (
	"encoding/base64"
	"fmt"
)

// base64url is unpadded base64url (RFC 4648, section 5); bits of the last character that nothing uses are zero.
var base64url = base64.RawURLEncoding.Strict()

func encodeBase64(b []byte) string { return base64url.EncodeToString(b) }

// decodeBase64 accepts only what encodeBase64 gives for some bytes. ErrMalformed.
func decodeBase64(s string) ([]byte, error) { return appendDecodedBase64(nil, []byte(s)) }

// appendDecodedBase64 is decodeBase64 that appends to dst. Allocates nothing where there is room and s is well-formed.
func appendDecodedBase64(dst, s []byte) ([]byte, error) {
	before := len(dst)
	dst, err := base64url.AppendDecode(dst, s)
	// The decoder skips line breaks, so that one name had many spellings.
	if err != nil || base64url.EncodedLen(len(dst)-before) != len(s) {
		return nil, fmt.Errorf("not base64url: %w", ErrMalformed)
	}
	return dst, nil
}
