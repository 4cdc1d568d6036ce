package crypto

import (
	"encoding/hex"
	"fmt"
	"io"
)

// ID is 16 random bytes that name a volume, a file, a directory or a session. It is public, and written in text as 32
// lower-case hex digits. The zero ID means that there is none.
type ID [16]byte

// NewID draws an ID from random.
func NewID(random io.Reader) (ID, error) {
	var id ID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return ID{}, fmt.Errorf("draw ID: %w", err)
	}
	return id, nil
}

// ParseID reads exactly 32 lower-case hex digits. Anything else is ErrMalformed.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("parse ID: %d characters, want %d: %w", len(s), 2*len(id), ErrMalformed)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, fmt.Errorf("parse ID: not lower-case hex digits: %w", ErrMalformed)
	}
	return id, nil
}

// String gives 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether id is the zero ID.
func (id ID) IsZero() bool { return id == ID{} }

// MarshalText is String as bytes, for JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseID; on error id is unchanged.
func (id *ID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
