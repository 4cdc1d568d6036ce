package crypto

import (
	"fmt"
	"io"
)

// A directory record, 112 bytes:
//
//	0    8  "kmsfsdir"
//	8   16  directory ID
//	24  24  nonce
//	48  48  encrypted: binding A 16, binding B 16, 16 reserved
//	96  16  tag
//
// Sealed by XAES under the volume key's key for LabelDir; AAD = bytes 0–23 ‖ volume ID.

const (
	dirMagic     = "kmsfsdir"
	dirHead      = len(dirMagic) + len(ID{})
	dirPlainSize = 48

	// DirRecordSize is the length of a directory record in bytes.
	DirRecordSize = dirHead + NonceSize + dirPlainSize + TagSize
)

// DirRecord seals a directory: which one it is and where it belongs.
type DirRecord struct {
	ID       ID
	BindingA [16]byte // see bind.go; zeros if free
	BindingB [16]byte // likewise; in use while a rename is under way
}

// DirCipher opens and seals the directory records of one volume. Safe for concurrent use.
type DirCipher struct {
	xaes   *XAES
	volume ID
}

// NewDirCipher derives the key for directory records from the volume key, and keeps nothing else of it.
func NewDirCipher(vk *Key, volume ID) *DirCipher {
	k := vk.Derive(LabelDir)
	defer k.Wipe()
	return &DirCipher{xaes: NewXAES(k), volume: volume}
}

// Wipe overwrites the key; the cipher must not be used beside or after it.
func (c *DirCipher) Wipe() { c.xaes.Wipe() }

// Open authenticates the 112 bytes of a directory record. ErrAuthentication if it was not sealed for this volume,
// ErrMalformed if it has another length or magic, or if its reserved bytes are not zero.
func (c *DirCipher) Open(b []byte) (DirRecord, error) {
	if len(b) != DirRecordSize {
		return DirRecord{}, fmt.Errorf("open directory record: %d bytes, want %d: %w", len(b), DirRecordSize, ErrMalformed)
	}
	if string(b[:len(dirMagic)]) != dirMagic {
		return DirRecord{}, fmt.Errorf("open directory record: no magic: %w", ErrMalformed)
	}
	plain, err := c.xaes.Open(nil, b[dirHead:], c.aad(b))
	if err != nil {
		return DirRecord{}, fmt.Errorf("open directory record: %w", err)
	}
	if [16]byte(plain[32:]) != [16]byte{} {
		return DirRecord{}, fmt.Errorf("open directory record: reserved bytes are not zero: %w", ErrMalformed)
	}
	return DirRecord{ID: ID(b[len(dirMagic):dirHead]), BindingA: [16]byte(plain), BindingB: [16]byte(plain[16:])}, nil
}

// Seal writes all 112 bytes of dst, under a nonce drawn from random. ErrMalformed if dst has another length.
func (c *DirCipher) Seal(dst []byte, random io.Reader, r DirRecord) error {
	if len(dst) != DirRecordSize {
		return fmt.Errorf("seal directory record: %d bytes, want %d: %w", len(dst), DirRecordSize, ErrMalformed)
	}
	var plain [dirPlainSize]byte
	copy(plain[:], r.BindingA[:])
	copy(plain[16:], r.BindingB[:])
	copy(dst, dirMagic)
	copy(dst[len(dirMagic):], r.ID[:])
	if _, err := c.xaes.Seal(dst[:dirHead], random, plain[:], c.aad(dst)); err != nil {
		return fmt.Errorf("seal directory record: %w", err)
	}
	return nil
}

func (c *DirCipher) aad(record []byte) []byte {
	return append(record[:dirHead:dirHead], c.volume[:]...)
}

// DirRecordID reads the directory ID from a record; nothing is authenticated. False if it has another length or magic.
func DirRecordID(b []byte) (ID, bool) {
	if len(b) != DirRecordSize || string(b[:len(dirMagic)]) != dirMagic {
		return ID{}, false
	}
	return ID(b[len(dirMagic):dirHead]), true
}
