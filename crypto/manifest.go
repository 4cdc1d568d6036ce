package crypto

import (
	"encoding/binary"
	"fmt"
	"io"
)

// ManifestChunkSize is the plaintext of every chunk of a manifest but the last, in bytes.
const ManifestChunkSize = 64 << 10

// ManifestChunk says which part of which manifest a chunk is: the additional data of its message is volume ID ‖ manifest
// ID ‖ generation u64 ‖ index u64 ‖ 1 if it is the last, else 0. So chunks can neither change places, nor come from
// another manifest, nor be left out at the end.
type ManifestChunk struct {
	Manifest   ID
	Generation uint64
	Index      uint64
	Last       bool
}

// ManifestCipher seals and opens the manifests of a volume's copies, in chunks. Safe for concurrent use.
type ManifestCipher struct {
	xaes   *XAES
	volume ID
}

// NewManifestCipher derives the key of manifests from the volume key, and keeps nothing else of it.
func NewManifestCipher(vk *Key, volume ID) *ManifestCipher {
	k := vk.Derive(LabelManifest)
	defer k.Wipe()
	return &ManifestCipher{xaes: NewXAES(k), volume: volume}
}

// Wipe overwrites the key; the cipher must not be used beside or after it.
func (c *ManifestCipher) Wipe() { c.xaes.Wipe() }

// Seal appends a chunk, 40 bytes longer than plain, to dst.
func (c *ManifestCipher) Seal(dst []byte, random io.Reader, plain []byte, at ManifestChunk) ([]byte, error) {
	out, err := c.xaes.Seal(dst, random, plain, c.aad(at))
	if err != nil {
		return nil, fmt.Errorf("seal manifest: %w", err)
	}
	return out, nil
}

// Open appends the plaintext of a chunk to dst. ErrAuthentication if it is not this one.
func (c *ManifestCipher) Open(dst, sealed []byte, at ManifestChunk) ([]byte, error) {
	out, err := c.xaes.Open(dst, sealed, c.aad(at))
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	return out, nil
}

func (c *ManifestCipher) aad(at ManifestChunk) []byte {
	b := make([]byte, 0, 2*len(ID{})+17)
	b = append(b, c.volume[:]...)
	b = append(b, at.Manifest[:]...)
	b = binary.LittleEndian.AppendUint64(b, at.Generation)
	b = binary.LittleEndian.AppendUint64(b, at.Index)
	if at.Last {
		return append(b, 1)
	}
	return append(b, 0)
}
