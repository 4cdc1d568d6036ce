package crypto

import (
	"bytes"
	"crypto/aes"
	"crypto/sha256"
	"fmt"
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
)

// NameCipher encrypts file names and names of extended attributes. It is deterministic: a name in a directory always
// has the same ciphertext, which is how it is found. Safe for concurrent use.
type NameCipher struct {
	siv *aesSIV
}

// NewNameCipher derives the 64-byte key for names from the volume key, and keeps nothing else of it.
func NewNameCipher(vk *Key) *NameCipher {
	key := vk.expand(LabelNames, sivKeySize)
	defer clear(key)
	return &NameCipher{newAESSIV(key)}
}

// Wipe overwrites the keys; the cipher must not be used beside or after it.
func (n *NameCipher) Wipe() { n.siv.wipe() }

// Encrypt gives the backing name, 43 to 363 characters of base64url, of a name in the directory dir; one over
// MaxBackingName is to be stored under ShortName. name has 1 to 255 bytes (more is ErrTooLarge) without '/' and NUL
// and is neither "." nor ".." (else ErrMalformed).
func (n *NameCipher) Encrypt(dir ID, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("encrypt name: %w", err)
	}
	var padded [maxPadded]byte
	var sealed [sivSize + maxPadded]byte
	var text [MaxEncryptedName]byte
	b := n.siv.seal(sealed[:0], pad(padded[:0], name), dir[:])
	return string(base64url.AppendEncode(text[:0], b)), nil
}

// Decrypt is the inverse of Encrypt; a long name is passed in full, not as its ShortName. ErrMalformed if enc has not
// the shape of an encrypted name, or opens to what is not a name; ErrAuthentication if it was not made for dir.
func (n *NameCipher) Decrypt(dir ID, enc string) (string, error) {
	// One that is cut is still too long.
	var text [MaxEncryptedName + 1]byte
	var name [maxPadded]byte
	b, err := n.AppendDecrypted(name[:0], dir, text[:copy(text[:], enc)])
	return string(b), err
}

// AppendDecrypted is Decrypt that appends the name to dst. Allocates nothing where dst has room for 256 bytes.
func (n *NameCipher) AppendDecrypted(dst []byte, dir ID, enc []byte) ([]byte, error) {
	dst, err := n.appendDecrypted(dst, dir, enc)
	if err != nil {
		return nil, fmt.Errorf("decrypt name: %w", err)
	}
	return dst, nil
}

func (n *NameCipher) appendDecrypted(dst []byte, dir ID, enc []byte) ([]byte, error) {
	if len(enc) > MaxEncryptedName {
		return nil, fmt.Errorf("over %d characters: %w", MaxEncryptedName, ErrMalformed)
	}
	var room [sivSize + maxPadded]byte
	sealed, err := appendDecodedBase64(room[:0], enc)
	if err != nil {
		return nil, err
	}
	if len(sealed) < sivSize+aes.BlockSize || len(sealed)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%d bytes: %w", len(sealed), ErrMalformed)
	}
	before := len(dst)
	if dst, err = n.siv.open(dst, sealed, dir[:]); err != nil {
		return nil, err
	}
	name, err := unpad(dst[before:])
	if err == nil {
		err = checkName(name)
	}
	if err != nil {
		clear(dst[before:])
		return nil, err
	}
	return dst[:before+len(name)], nil
}

// ShortName is the name under which a backing name over MaxBackingName is stored: 45 characters.
func ShortName(enc string) string {
	sum := sha256.Sum256([]byte(enc))
	return LongPrefix + encodeBase64(sum[:])
}

func checkName[T string | []byte](name T) error {
	switch {
	case len(name) == 0 || string(name) == "." || string(name) == "..":
		return fmt.Errorf("name is empty, . or ..: %w", ErrMalformed)
	case len(name) > MaxName:
		return fmt.Errorf("name of %d bytes: %w", len(name), ErrTooLarge)
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return fmt.Errorf("name with / or NUL: %w", ErrMalformed)
		}
	}
	return nil
}

// maxPadded is the most bytes of a padded name.
const maxPadded = (MaxName/aes.BlockSize + 1) * aes.BlockSize

// pad appends a name, 0x80 and then zeros up to a multiple of 16 (ISO/IEC 7816-4); always at least one byte more.
func pad(dst []byte, name string) []byte {
	var fill [aes.BlockSize]byte
	fill[0] = 0x80
	return append(append(dst, name...), fill[:aes.BlockSize-len(name)%aes.BlockSize]...)
}

// unpad gives what pad was given, a part of padded.
func unpad(padded []byte) ([]byte, error) {
	end := bytes.LastIndexByte(padded, 0x80)
	if end < 0 || len(padded)-end > aes.BlockSize || (end+1 < len(padded) && !IsHole(padded[end+1:])) {
		return nil, fmt.Errorf("wrong padding: %w", ErrMalformed)
	}
	return padded[:end], nil
}
