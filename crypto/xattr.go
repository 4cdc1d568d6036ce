package crypto

import (
	"fmt"
	"io"
	"strings"
)

// An extended attribute is stored under XattrPrefix ‖ base64url(AES-SIV(name)), with the names key and the five bytes
// "xattr" as associated data, which no directory ID can be; names are not padded. Its value is sealed by XAES under the
// volume key's key for LabelXattr, AAD = ID of the file or directory ‖ name.

const (
	// XattrPrefix begins the backing name of every encrypted attribute.
	XattrPrefix = "user.kmsfs."
	// MaxXattrName is the longest name, in bytes, whose backing name keeps the limit of Linux, 255.
	MaxXattrName = (255-len(XattrPrefix))*3/4 - sivSize
	// XattrOverhead is what sealing adds to a value in bytes.
	XattrOverhead = NonceSize + TagSize

	xattrAD = "xattr"
)

// EncryptXattrName gives the backing name of an attribute; name includes its namespace, as in "user.comment", and has
// 1 to MaxXattrName bytes (more is ErrTooLarge) without NUL (else ErrMalformed).
func (n *NameCipher) EncryptXattrName(name string) (string, error) {
	if err := checkXattrName(name); err != nil {
		return "", fmt.Errorf("encrypt attribute name: %w", err)
	}
	return XattrPrefix + encodeBase64(n.siv.seal(nil, []byte(name), []byte(xattrAD))), nil
}

// DecryptXattrName is the inverse of EncryptXattrName. ErrMalformed if enc has not the shape of an encrypted name,
// ErrAuthentication if it is not one of this volume.
func (n *NameCipher) DecryptXattrName(enc string) (string, error) {
	text, ok := strings.CutPrefix(enc, XattrPrefix)
	if !ok {
		return "", fmt.Errorf("decrypt attribute name: no prefix %s: %w", XattrPrefix, ErrMalformed)
	}
	sealed, err := decodeBase64(text)
	if err != nil {
		return "", fmt.Errorf("decrypt attribute name: %w", err)
	}
	if len(sealed) <= sivSize || len(sealed) > sivSize+MaxXattrName {
		return "", fmt.Errorf("decrypt attribute name: %d bytes: %w", len(sealed), ErrMalformed)
	}
	name, err := n.siv.open(nil, sealed, []byte(xattrAD))
	if err != nil {
		return "", fmt.Errorf("decrypt attribute name: %w", err)
	}
	if err := checkXattrName(string(name)); err != nil {
		return "", fmt.Errorf("decrypt attribute name: %w", err)
	}
	return string(name), nil
}

func checkXattrName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty name: %w", ErrMalformed)
	case len(name) > MaxXattrName:
		return fmt.Errorf("name of %d bytes: %w", len(name), ErrTooLarge)
	case strings.IndexByte(name, 0) >= 0:
		return fmt.Errorf("name with NUL: %w", ErrMalformed)
	}
	return nil
}

// XattrCipher seals the values of extended attributes. Safe for concurrent use.
type XattrCipher struct {
	xaes *XAES
}

// NewXattrCipher derives the key for values from the volume key, and keeps nothing else of it.
func NewXattrCipher(vk *Key) *XattrCipher {
	k := vk.Derive(LabelXattr)
	defer k.Wipe()
	return &XattrCipher{xaes: NewXAES(k)}
}

// Wipe overwrites the key; the cipher must not be used beside or after it.
func (c *XattrCipher) Wipe() { c.xaes.Wipe() }

// Seal gives the stored form, 40 bytes longer, of the value of the attribute name of the file or directory id. The
// value may be empty.
func (c *XattrCipher) Seal(random io.Reader, id ID, name string, value []byte) ([]byte, error) {
	sealed, err := c.xaes.Seal(nil, random, value, append(id[:], name...))
	if err != nil {
		return nil, fmt.Errorf("seal attribute: %w", err)
	}
	return sealed, nil
}

// Open is the inverse of Seal. ErrAuthentication if sealed is not a value of this attribute of this file.
func (c *XattrCipher) Open(id ID, name string, sealed []byte) ([]byte, error) {
	value, err := c.xaes.Open(nil, sealed, append(id[:], name...))
	if err != nil {
		return nil, fmt.Errorf("open attribute: %w", err)
	}
	return value, nil
}
