package crypto

import (
	"fmt"
	"math"
)

// A data file is a header of 144 bytes and then one record per block of 4096 bytes of plaintext:
//
//	plain    0           4096        8192     size
//	         ├── block 0 ──┼── block 1 ──┼─ … ──┤
//	cipher   144         4280        8416     CipherSize(size)
//
// The last block may be shorter, never empty. Offsets into the plaintext are called plainOff, offsets into the backing
// file cipherOff, and only this file turns one into the other.
const (
	// BlockSize is the plaintext of a full block in bytes.
	BlockSize = 4096
	// BlockOverhead is what a block record adds: nonce and tag.
	BlockOverhead = NonceSize + TagSize
	// CipherBlockSize is the record of a full block in bytes.
	CipherBlockSize = BlockSize + BlockOverhead
	// HeaderSize is the header of a data file in bytes: magic, file ID and the sealed record.
	HeaderSize = RecordOffset + NonceSize + recordSize + TagSize
	// RecordOffset is the cipherOff of the part of the header that changes: nonce ‖ record ‖ tag, 120 bytes.
	RecordOffset = 24
)

const (
	maxBody = math.MaxInt64 - HeaderSize
	// MaxFileSize is the largest plaintext, in bytes, whose backing file has a size that fits in an int64.
	MaxFileSize int64 = maxBody/CipherBlockSize*BlockSize + max(maxBody%CipherBlockSize-BlockOverhead, 0)
	maxBlocks         = uint64((MaxFileSize + BlockSize - 1) / BlockSize)
)

// CipherSize is the size of the backing file of plain bytes. ErrTooLarge if plain is negative or over MaxFileSize.
func CipherSize(plain int64) (int64, error) {
	if plain < 0 || plain > MaxFileSize {
		return 0, fmt.Errorf("file of %d bytes: %w", plain, ErrTooLarge)
	}
	cipher := HeaderSize + plain/BlockSize*CipherBlockSize
	if tail := plain % BlockSize; tail > 0 {
		cipher += tail + BlockOverhead
	}
	return cipher, nil
}

// PlainSize is the plaintext in bytes of a backing file of cipher bytes. ErrShortHeader below 144 bytes; ErrTornTail
// if the last record has 1 to 40 bytes, too few for any content.
func PlainSize(cipher int64) (int64, error) {
	if cipher < HeaderSize {
		return 0, fmt.Errorf("backing file of %d bytes: %w", cipher, ErrShortHeader)
	}
	if tail := (cipher - HeaderSize) % CipherBlockSize; tail > 0 && tail <= BlockOverhead {
		return 0, fmt.Errorf("backing file of %d bytes: %w", cipher, ErrTornTail)
	}
	return PlainSizeFloor(cipher), nil
}

// PlainSizeFloor is PlainSize for stat, which has to answer something: a torn tail counts nothing, a short header
// gives 0.
func PlainSizeFloor(cipher int64) int64 {
	if cipher < HeaderSize {
		return 0
	}
	body := cipher - HeaderSize
	return body/CipherBlockSize*BlockSize + max(body%CipherBlockSize-BlockOverhead, 0)
}

// CipherLen is the length in bytes of the records of plain bytes that start at a block boundary; 0 for 0. The caller
// keeps plain non-negative and, where int has 32 bits, below 2 GiB.
func CipherLen(plain int) int {
	n := plain / BlockSize * CipherBlockSize
	if tail := plain % BlockSize; tail > 0 {
		n += tail + BlockOverhead
	}
	return n
}

// BlockOffset is the cipherOff at which the record of a block begins. Meaningful for blocks that MaxFileSize has.
func BlockOffset(index uint64) int64 { return HeaderSize + int64(index)*CipherBlockSize }

// BlockIndex is the block in which the byte at plainOff lies; plainOff must not be negative.
func BlockIndex(plainOff int64) uint64 { return uint64(plainOff) / BlockSize }

// BlockCount is how many blocks a file of plainSize bytes has, holes included; 0 for a negative size.
func BlockCount(plainSize int64) uint64 {
	if plainSize <= 0 {
		return 0
	}
	return (uint64(plainSize) + BlockSize - 1) / BlockSize
}

// BlockLen is the plaintext length of a block in a file of plainSize bytes: 4096, less for the last, 0 beyond it.
func BlockLen(plainSize int64, index uint64) int {
	if index >= BlockCount(plainSize) {
		return 0
	}
	return int(min(uint64(plainSize)-index*BlockSize, BlockSize))
}
