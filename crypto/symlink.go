package crypto

import (
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

const (
	// MaxSymlink is the longest symlink target in bytes, as everywhere on Linux.
	MaxSymlink = 4095
	// MaxInlineSymlink is the longest target whose encoded form still fits in a backing symlink; a longer one goes to
	// a file.
	MaxInlineSymlink = MaxSymlink*3/4 - NonceSize - TagSize
)

// SymlinkCipher seals symlink targets: nonce ‖ ciphertext ‖ tag by XAES under the volume key's key for LabelSymlink,
// AAD = volume ID. A target is not bound to its link: two links of a volume can be swapped unseen. Safe for concurrent
// use.
type SymlinkCipher struct {
	xaes   *XAES
	volume ID
}

// NewSymlinkCipher derives the key for symlinks from the volume key, and keeps nothing else of it.
func NewSymlinkCipher(vk *Key, volume ID) *SymlinkCipher {
	k := vk.Derive(LabelSymlink)
	defer k.Wipe()
	return &SymlinkCipher{xaes: NewXAES(k), volume: volume}
}

// Wipe overwrites the key; the cipher must not be used beside or after it.
func (s *SymlinkCipher) Wipe() { s.xaes.Wipe() }

// Seal gives the raw form of a target, 40 bytes longer. target has 1 to 4095 bytes (more is ErrTooLarge) without NUL
// (else ErrMalformed).
func (s *SymlinkCipher) Seal(random io.Reader, target string) ([]byte, error) {
	if err := checkTarget(target); err != nil {
		return nil, fmt.Errorf("seal symlink: %w", err)
	}
	raw, err := s.xaes.Seal(nil, random, []byte(target), s.volume[:])
	if err != nil {
		return nil, fmt.Errorf("seal symlink: %w", err)
	}
	return raw, nil
}

// Open is the inverse of Seal. ErrAuthentication if raw was not sealed for this volume, ErrMalformed if its length is
// that of no target.
func (s *SymlinkCipher) Open(raw []byte) (string, error) {
	if n := len(raw) - NonceSize - TagSize; n < 1 || n > MaxSymlink {
		return "", fmt.Errorf("open symlink: %d bytes: %w", len(raw), ErrMalformed)
	}
	target, err := s.xaes.Open(nil, raw, s.volume[:])
	if err != nil {
		return "", fmt.Errorf("open symlink: %w", err)
	}
	if err := checkTarget(string(target)); err != nil {
		return "", fmt.Errorf("open symlink: %w", err)
	}
	return string(target), nil
}

// EncodeSymlink is the text that a backing symlink holds: base64url of the raw form.
func EncodeSymlink(raw []byte) string { return encodeBase64(raw) }

// DecodeSymlink is the inverse of EncodeSymlink; ErrMalformed.
func DecodeSymlink(s string) ([]byte, error) {
	raw, err := decodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("decode symlink: %w", err)
	}
	return raw, nil
}

// SymlinkPlainLen is the length in bytes of the target of a backing symlink whose text has encodedLen characters, for
// stat. False if no target encodes to that many; so it is for the 32 digits of an ID.
func SymlinkPlainLen(encodedLen int) (int, bool) {
	if encodedLen < 0 || encodedLen%4 == 1 {
		return 0, false
	}
	n := base64.RawURLEncoding.DecodedLen(encodedLen) - NonceSize - TagSize
	if n < 1 || n > MaxSymlink {
		return 0, false
	}
	return n, true
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return fmt.Errorf("empty target: %w", ErrMalformed)
	case len(target) > MaxSymlink:
		return fmt.Errorf("target of %d bytes: %w", len(target), ErrTooLarge)
	case strings.IndexByte(target, 0) >= 0:
		return fmt.Errorf("target with NUL: %w", ErrMalformed)
	}
	return nil
}
