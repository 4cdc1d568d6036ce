package crypto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// A block record is nonce 24 ‖ ciphertext ≤ 4096 ‖ tag 16, sealed by XAES under the file's content key with AAD = file
// ID ‖ block index u64. A record of zeros is a hole: where one is allowed is for the file's record to say, not for
// this code.

const blockAADSize = len(ID{}) + 8

// blockScratch holds additional data outside the stack, where a call through cipher.AEAD would move it at every block.
type blockScratch [blockAADSize]byte

var blockScratches = sync.Pool{New: func() any { return new(blockScratch) }}

// BlockCipher opens the blocks of one file, and starts the sessions that seal them. Safe for concurrent use.
type BlockCipher struct {
	ring keyring
	file ID
}

// NewBlockCipher takes the key that the file secret has for LabelContent; it may be wiped afterwards.
func NewBlockCipher(content *Key, file ID) *BlockCipher {
	c := &BlockCipher{file: file}
	c.ring.init(content.Clone())
	return c
}

// Open decrypts the record of block index straight into dst, which is 40 bytes shorter and must not overlap it.
// ErrAuthentication if the record is not what was sealed for this block of this file, and dst is zeros then;
// ErrMalformed if the lengths do not fit; ErrWiped after Wipe. Nothing is allocated while the record's session is one
// of the last 8 seen.
func (c *BlockCipher) Open(dst []byte, record []byte, index uint64) error {
	if len(record) <= BlockOverhead || len(record) > CipherBlockSize || len(dst) != len(record)-BlockOverhead {
		return fmt.Errorf("open block %d: record of %d bytes into %d: %w", index, len(record), len(dst), ErrMalformed)
	}
	aead, err := c.ring.find(record[:prefixSize])
	if err != nil {
		return fmt.Errorf("open block %d: %w", index, err)
	}
	aad := blockScratches.Get().(*blockScratch)
	copy(aad[:], c.file[:])
	binary.LittleEndian.PutUint64(aad[len(c.file):], index)
	_, err = aead.Open(dst[:0], record[prefixSize:NonceSize], record[NonceSize:], aad[:])
	blockScratches.Put(aad)
	if err != nil {
		return fmt.Errorf("open block %d: %w", index, ErrAuthentication)
	}
	return nil
}

// Wipe overwrites the key and all that was derived from it. It must not run beside another call, of a sealer either;
// later ones give ErrWiped.
func (c *BlockCipher) Wipe() { c.ring.wipe() }

// NewSealer begins a writer session: it draws a nonce prefix from random, which must be safe for concurrent use if the
// sealer is to be. Make one whenever a file's write state is loaded.
func (c *BlockCipher) NewSealer(random io.Reader) (*BlockSealer, error) {
	s := &BlockSealer{file: c.file}
	if err := s.session.start(&c.ring, random); err != nil {
		return nil, fmt.Errorf("begin block session: %w", err)
	}
	return s, nil
}

// BlockSealer is one writer session of a file. Safe for concurrent use.
type BlockSealer struct {
	session session
	file    ID
}

// Seal encrypts plain, which starts at the beginning of block first, into the records of dst: CipherLen(len(plain))
// bytes that do not overlap plain. Only the last block may be shorter than 4096 bytes.
//
// Each block gets 12 fresh random bytes of nonce, all of one call from a single read. No limit on the number of calls:
// after 2^32 blocks the session draws a new prefix. Nothing is allocated. On error dst holds nothing of use; errors are
// those of the random source, ErrWiped, and ErrTooLarge for blocks that no file can have.
func (s *BlockSealer) Seal(dst, plain []byte, first uint64) error {
	if len(dst) != CipherLen(len(plain)) {
		return fmt.Errorf("seal block %d: %d bytes into %d: %w", first, len(plain), len(dst), ErrMalformed)
	}
	blocks := BlockCount(int64(len(plain)))
	if blocks > maxBlocks || first > maxBlocks-blocks {
		return fmt.Errorf("seal block %d: %w", first, ErrTooLarge)
	}
	if blocks == 0 {
		return nil
	}
	prefix, aead, err := s.session.take(blocks)
	if err != nil {
		return fmt.Errorf("seal block %d: %w", first, err)
	}
	if err := s.drawNonces(dst, int(blocks), prefix); err != nil {
		return fmt.Errorf("seal block %d: %w", first, err)
	}
	aad := blockScratches.Get().(*blockScratch)
	copy(aad[:], s.file[:])
	for i := range blocks {
		binary.LittleEndian.PutUint64(aad[len(s.file):], first+i)
		n := min(len(plain), BlockSize)
		aead.Seal(dst[NonceSize:NonceSize], dst[prefixSize:NonceSize], plain[:n], aad[:])
		dst, plain = dst[n+BlockOverhead:], plain[n:]
	}
	blockScratches.Put(aad)
	return nil
}

// drawNonces fills the nonces of the records in dst. The random bytes are read into the front of dst and spread from
// the last record to the first: nonce i moves from 12i to 4136i+12, which lies behind every nonce not yet moved.
func (s *BlockSealer) drawNonces(dst []byte, blocks int, prefix [prefixSize]byte) error {
	const size = NonceSize - prefixSize
	if _, err := io.ReadFull(s.session.random, dst[:blocks*size]); err != nil {
		return fmt.Errorf("draw nonces: %w", err)
	}
	for i := blocks - 1; i >= 0; i-- {
		nonce := dst[i*CipherBlockSize:][:NonceSize]
		copy(nonce[prefixSize:], dst[i*size:][:size])
		copy(nonce, prefix[:])
	}
	return nil
}

// IsHole tells whether every byte of record is zero: a block that was never written. False for no bytes at all.
func IsHole(record []byte) bool {
	// Each byte equals its neighbour and the first is zero.
	return len(record) > 0 && record[0] == 0 && bytes.Equal(record[1:], record[:len(record)-1])
}

// RecordTag is the tag of a block record, its last 16 bytes; it goes into the file's root. Panics on fewer bytes.
func RecordTag(record []byte) [TagSize]byte {
	return [TagSize]byte(record[len(record)-TagSize:])
}
