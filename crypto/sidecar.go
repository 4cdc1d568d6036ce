package crypto

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// A sidecar holds a file's wrapped data keys:
//
//	"kmsfskey"  version 1 u8  volume ID 16  file ID 16  count u8
//	count × { provider: u8 length + bytes  key ID: u16 length + bytes  wrapped key: u16 length + bytes }
//	commitment 32
//
// Integers are little-endian. The commitment does not cover the list of wrapped keys, so that a KMS can re-wrap an
// entry without anyone seeing the key: nothing in a sidecar is to be believed before CheckCommitment, and key IDs
// not before they were found in the volume's list.

const (
	sidecarMagic   = "kmsfskey"
	sidecarVersion = 1
	sidecarHead    = len(sidecarMagic) + 1 + 2*len(ID{}) + 1
	commitmentSize = 32

	// MaxWrappedKeys is how many wrapped keys a sidecar may hold.
	MaxWrappedKeys = 8
	// MaxProviderLen, MaxKeyIDLen and MaxWrappedLen are limits of a WrappedKey in bytes.
	MaxProviderLen = 255
	MaxKeyIDLen    = 2048
	MaxWrappedLen  = 8192
	// MaxSidecarSize is the length of the largest sidecar in bytes: a file that is larger is none.
	MaxSidecarSize = sidecarHead + MaxWrappedKeys*(1+MaxProviderLen+2+MaxKeyIDLen+2+MaxWrappedLen) + commitmentSize
)

// WrappedKey is a data key under one wrapping key.
type WrappedKey struct {
	Provider string // 1–255 bytes; "volume" if the volume key wraps
	KeyID    string // 0–2048 bytes, as the provider names the wrapping key
	Wrapped  []byte // 1–8192 bytes, opaque
}

func (w WrappedKey) check() error {
	switch {
	case len(w.Provider) == 0 || len(w.Provider) > MaxProviderLen:
		return fmt.Errorf("provider of %d bytes: %w", len(w.Provider), ErrMalformed)
	case len(w.KeyID) > MaxKeyIDLen:
		return fmt.Errorf("key ID of %d bytes: %w", len(w.KeyID), ErrMalformed)
	case len(w.Wrapped) == 0 || len(w.Wrapped) > MaxWrappedLen:
		return fmt.Errorf("wrapped key of %d bytes: %w", len(w.Wrapped), ErrMalformed)
	}
	return nil
}

// Sidecar is the key file of a data file.
type Sidecar struct {
	Volume, File ID
	Keys         []WrappedKey // 1–8
	Commitment   [32]byte     // see Commitment
}

// Marshal gives the bytes that ParseSidecar reads. ErrMalformed if a count or a length is out of its limits.
func (s *Sidecar) Marshal() ([]byte, error) {
	if len(s.Keys) == 0 || len(s.Keys) > MaxWrappedKeys {
		return nil, fmt.Errorf("marshal sidecar: %d wrapped keys: %w", len(s.Keys), ErrMalformed)
	}
	b := append([]byte(sidecarMagic), sidecarVersion)
	b = append(b, s.Volume[:]...)
	b = append(b, s.File[:]...)
	b = append(b, byte(len(s.Keys)))
	for i, k := range s.Keys {
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("marshal sidecar: entry %d: %w", i, err)
		}
		b = append(b, byte(len(k.Provider)))
		b = append(b, k.Provider...)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(k.KeyID)))
		b = append(b, k.KeyID...)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(k.Wrapped)))
		b = append(b, k.Wrapped...)
	}
	return append(b, s.Commitment[:]...), nil
}

// ParseSidecar reads a whole sidecar; it keeps nothing of b. ErrMalformed if it is cut short or has bytes to spare, if
// magic or version differ, or if a count or a length is out of its limits.
func ParseSidecar(b []byte) (*Sidecar, error) {
	s, err := parseSidecar(reader(b))
	if err != nil {
		return nil, fmt.Errorf("parse sidecar: %w", err)
	}
	return s, nil
}

func parseSidecar(r reader) (*Sidecar, error) {
	head, ok := r.take(sidecarHead)
	if !ok {
		return nil, fmt.Errorf("head is cut short: %w", ErrMalformed)
	}
	if magic, _ := head.take(len(sidecarMagic)); string(magic) != sidecarMagic {
		return nil, fmt.Errorf("no magic: %w", ErrMalformed)
	}
	if version, _ := head.take(1); version[0] != sidecarVersion {
		return nil, fmt.Errorf("version %d: %w", version[0], ErrMalformed)
	}
	s := new(Sidecar)
	volume, _ := head.take(len(s.Volume))
	file, _ := head.take(len(s.File))
	s.Volume, s.File = ID(volume), ID(file)
	count := int(head[0])
	if count == 0 || count > MaxWrappedKeys {
		return nil, fmt.Errorf("%d wrapped keys: %w", count, ErrMalformed)
	}
	for i := range count {
		provider, ok1 := r.takePrefixed(1)
		keyID, ok2 := r.takePrefixed(2)
		wrapped, ok3 := r.takePrefixed(2)
		if !ok1 || !ok2 || !ok3 {
			return nil, fmt.Errorf("entry %d is cut short: %w", i, ErrMalformed)
		}
		k := WrappedKey{Provider: string(provider), KeyID: string(keyID), Wrapped: append([]byte(nil), wrapped...)}
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		s.Keys = append(s.Keys, k)
	}
	if len(r) != commitmentSize {
		return nil, fmt.Errorf("%d bytes behind the keys, want %d: %w", len(r), commitmentSize, ErrMalformed)
	}
	s.Commitment = [commitmentSize]byte(r)
	return s, nil
}

// CheckCommitment compares, in constant time, the commitment with that of a file secret for this volume and file.
// ErrAuthentication if they differ: the data key was swapped, or the IDs were.
func (s *Sidecar) CheckCommitment(secret *Key) error {
	want := Commitment(secret, s.Volume, s.File)
	if subtle.ConstantTimeCompare(want[:], s.Commitment[:]) != 1 {
		return fmt.Errorf("check key commitment: %w", ErrAuthentication)
	}
	return nil
}

// reader is the rest of a buffer that is being parsed.
type reader []byte

func (r *reader) take(n int) (reader, bool) {
	if n > len(*r) {
		return nil, false
	}
	taken := (*r)[:n]
	*r = (*r)[n:]
	return taken, true
}

// takePrefixed takes bytes whose length, little-endian in the given number of bytes, stands before them.
func (r *reader) takePrefixed(lengthSize int) (reader, bool) {
	prefix, ok := r.take(lengthSize)
	if !ok {
		return nil, false
	}
	n := 0
	for i, b := range prefix {
		n |= int(b) << (8 * i)
	}
	return r.take(n)
}
