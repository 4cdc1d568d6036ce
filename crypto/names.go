package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// Names are padded by ISO 7816-4 to a multiple of 16 bytes, so that their length shows only roughly, and encrypted by
// AES-256-SIV (RFC 5297) with the directory's ID as associated data: the same name looks different in every directory,
// and a name moved to another directory does not open. What is over 255 bytes in base64url is stored under its hash,
// LongPrefix ‖ base64url(SHA-256), and in full in a file of that name with LongSuffix. Neither "." nor a name of the
// long kind can come out of base64url.

const (
	// MaxName is the longest plaintext name in bytes, as everywhere on Linux.
	MaxName = 255
	// MaxBackingName is the longest name that the backing file system stores, in bytes.
	MaxBackingName = 255
	// MaxEncryptedName is the longest result of Encrypt, in bytes: MaxName bytes, padded to 256, with the 16 of SIV.
	MaxEncryptedName = ((MaxName/aes.BlockSize+2)*aes.BlockSize*4 + 2) / 3
	// LongPrefix and LongSuffix mark names that are stored under their hash.
	LongPrefix = "L."
	LongSuffix = ".name"

	sivSize = 16 // synthetic IV before the ciphertext
)

// NameCipher encrypts file names and names of extended attributes. It is deterministic: a name in a directory always
// has the same ciphertext, which is how it is found. Safe for concurrent use.
type NameCipher struct {
	siv *subtle.AESSIV
	key []byte // which siv aliases
}

// NewNameCipher derives the 64-byte key for names from the volume key, and keeps nothing else of it.
func NewNameCipher(vk *Key) (*NameCipher, error) {
	key := vk.expand(LabelNames, subtle.AESSIVKeySize)
	siv, err := subtle.NewAESSIV(key)
	if err != nil {
		return nil, fmt.Errorf("new name cipher: %w", err)
	}
	return &NameCipher{siv, key}, nil
}

// Wipe overwrites the key; the cipher must not be used beside or after it. What the AES-SIV made of the key for its CMAC
// is out of reach, and goes with the last reference to the cipher.
func (n *NameCipher) Wipe() { clear(n.key) }

// Encrypt gives the backing name, 43 to 363 characters of base64url, of a name in the directory dir; one over
// MaxBackingName is to be stored under ShortName. name has 1 to 255 bytes (more is ErrTooLarge) without '/' and NUL
// and is neither "." nor ".." (else ErrMalformed).
func (n *NameCipher) Encrypt(dir ID, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("encrypt name: %w", err)
	}
	sealed, err := n.siv.EncryptDeterministically(pad(name), dir[:])
	if err != nil {
		return "", fmt.Errorf("encrypt name: %w", err)
	}
	return encodeBase64(sealed), nil
}

// Decrypt is the inverse of Encrypt; a long name is passed in full, not as its ShortName. ErrMalformed if enc has not
// the shape of an encrypted name, or opens to what is not a name; ErrAuthentication if it was not made for dir.
func (n *NameCipher) Decrypt(dir ID, enc string) (string, error) {
	name, err := n.decrypt(dir, enc)
	if err != nil {
		return "", fmt.Errorf("decrypt name: %w", err)
	}
	return name, nil
}

func (n *NameCipher) decrypt(dir ID, enc string) (string, error) {
	if len(enc) > MaxEncryptedName {
		return "", fmt.Errorf("%d characters: %w", len(enc), ErrMalformed)
	}
	sealed, err := decodeBase64(enc)
	if err != nil {
		return "", err
	}
	if len(sealed) < sivSize+aes.BlockSize || len(sealed)%aes.BlockSize != 0 {
		return "", fmt.Errorf("%d bytes: %w", len(sealed), ErrMalformed)
	}
	padded, err := n.siv.DecryptDeterministically(sealed, dir[:])
	if err != nil {
		return "", ErrAuthentication
	}
	name, err := unpad(padded)
	if err != nil {
		return "", err
	}
	if err := checkName(name); err != nil {
		return "", err
	}
	return name, nil
}

// ShortName is the name under which a backing name over MaxBackingName is stored: 45 characters.
func ShortName(enc string) string {
	sum := sha256.Sum256([]byte(enc))
	return LongPrefix + encodeBase64(sum[:])
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("name is empty, . or ..: %w", ErrMalformed)
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes: %w", len(name), ErrTooLarge)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name with / or NUL: %w", ErrMalformed)
	}
	return nil
}

// pad appends 0x80 and then zeros up to a multiple of 16 (ISO/IEC 7816-4); always at least one byte.
func pad(name string) []byte {
	padded := make([]byte, (len(name)/aes.BlockSize+1)*aes.BlockSize)
	copy(padded, name)
	padded[len(name)] = 0x80
	return padded
}

func unpad(padded []byte) (string, error) {
	end := bytes.LastIndexByte(padded, 0x80)
	if end < 0 || len(padded)-end > aes.BlockSize || (end+1 < len(padded) && !IsHole(padded[end+1:])) {
		return "", fmt.Errorf("wrong padding: %w", ErrMalformed)
	}
	return string(padded[:end]), nil
}
