package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// The root of a file is the XOR over its stored blocks of AES(k, AES(k, LE128(index)) ⊕ tag), with k the file secret's
// key for LabelRoot. A tag commits to file, index, nonce and content of its block, so a block that is put back to an
// older version, removed or added changes the root. Terms are their own inverse: replacing a block is XORing its old
// term and its new one.

// rootScratch keeps AES blocks off the stack, from which a call through cipher.Block would move them at every term.
type rootScratch [aes.BlockSize]byte

var rootScratches = sync.Pool{New: func() any { return new(rootScratch) }}

// Rooter computes the terms of one file's root. Safe for concurrent use.
type Rooter struct {
	block cipher.Block
}

// NewRooter takes the key that the file secret has for LabelRoot; it may be wiped afterwards.
func NewRooter(root *Key) *Rooter {
	return &Rooter{block: newAES(root.material())}
}

// Wipe overwrites the key; the rooter must not be used beside or after it.
func (r *Rooter) Wipe() { erase(r.block) }

// Term is what the stored block index with this tag contributes. Allocates nothing.
func (r *Rooter) Term(index uint64, tag [TagSize]byte) [16]byte {
	s := rootScratches.Get().(*rootScratch)
	r.term(s, index, tag[:])
	term := [16]byte(*s)
	rootScratches.Put(s)
	return term
}

func (r *Rooter) term(s *rootScratch, index uint64, tag []byte) {
	binary.LittleEndian.PutUint64(s[:8], index)
	clear(s[8:])
	r.block.Encrypt(s[:], s[:])
	subtle.XORBytes(s[:], s[:], tag)
	r.block.Encrypt(s[:], s[:])
}

// XORRecords XORs the terms of consecutive block records, the first of them that of block first, into root and counts
// those it found stored; holes contribute nothing. A last record of 40 bytes or less is no block and is left out.
// Allocates nothing.
func (r *Rooter) XORRecords(root *[16]byte, records []byte, first uint64) (stored uint64) {
	s := rootScratches.Get().(*rootScratch)
	for index := first; len(records) > BlockOverhead; index++ {
		record := records[:min(len(records), CipherBlockSize)]
		records = records[len(record):]
		if IsHole(record) {
			continue
		}
		r.term(s, index, record[len(record)-TagSize:])
		subtle.XORBytes(root[:], root[:], s[:])
		stored++
	}
	rootScratches.Put(s)
	return stored
}

// XORRoot adds a term to a root, or takes it away.
func XORRoot(dst *[16]byte, term [16]byte) {
	subtle.XORBytes(dst[:], dst[:], term[:])
}
