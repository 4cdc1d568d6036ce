package volume

import (
	"sync"

	"kmsfs/crypto"
)

// spanSize is the ciphertext of the blocks that one request touches at most,
// with the header in front of them.
const spanSize = crypto.HeaderSize + maxWriteBlocks*crypto.CipherBlockSize

// Buffers for ciphertext spans and single blocks. They hold ciphertext, but for
// scratch blocks, which are wiped before they are given back.
var (
	spans  = sync.Pool{New: func() any { return new([spanSize]byte) }}
	blocks = sync.Pool{New: func() any { return new(scratch) }}
)

// scratch is room for one block in both forms.
type scratch struct {
	plain  [crypto.BlockSize]byte
	cipher [crypto.CipherBlockSize]byte
}

func getScratch() *scratch { return blocks.Get().(*scratch) }

func (s *scratch) put() {
	clear(s.plain[:])
	blocks.Put(s)
}
