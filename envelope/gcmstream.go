package envelope

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
)

// gcmStream opens one AES-GCM ciphertext piece by piece, where cipher.AEAD wants it whole: CTR for the plaintext, GHASH
// for the tag (NIST SP 800-38D). Its plaintext is not authenticated until verify says so.
//
// The hash of a piece comes from the AEAD itself, which has the processor's instructions for it: the tag of an empty
// plaintext is GHASH(associated data ‖ lengths) ⊕ E(nonce ‖ 1), from which the state after the associated data follows,
// since in the field one can divide by H. That is one multiplication of our own for a piece.
type gcmStream struct {
	aead        cipher.AEAD
	ctr         cipher.Stream
	h, inverseH element
	macMask     element // E of the counter block that the AEAD hides a hash of ours with
	tagMask     element // and of that of the message's tag
	state       element // GHASH so far
	aadSize     int
	size        uint64 // bytes of ciphertext so far

	zeroNonce [nonceSize]byte // scratch, like the next
	tag       [tagSize]byte
}

// newGCMStream begins a ciphertext of block, of which aead is the GCM; it is at most maxNonFramed bytes.
func newGCMStream(block cipher.Block, aead cipher.AEAD, nonce, aad []byte) *gcmStream {
	encrypt := func(nonce []byte, counter uint32) (b [16]byte) {
		copy(b[:], nonce)
		binary.BigEndian.PutUint32(b[nonceSize:], counter)
		block.Encrypt(b[:], b[:])
		return b
	}
	s := &gcmStream{aead: aead, aadSize: len(aad)}
	h := encrypt(s.zeroNonce[:], 0)
	s.h = elementOf(h[:])
	s.inverseH = s.h.inverse()
	mac, tag := encrypt(s.zeroNonce[:], 1), encrypt(nonce, 1)
	s.macMask, s.tagMask = elementOf(mac[:]), elementOf(tag[:])
	var first [16]byte
	copy(first[:], nonce)
	first[15] = 2
	s.ctr = cipher.NewCTR(block, first[:])
	s.hash(aad)
	return s
}

// open decrypts a piece in place. All pieces but the last are a multiple of 16 bytes.
func (s *gcmStream) open(piece []byte) {
	s.hash(piece)
	s.size += uint64(len(piece))
	s.ctr.XORKeyStream(piece, piece)
}

// hash goes on with zero-padded b, which it changes and restores.
func (s *gcmStream) hash(b []byte) {
	if len(b) == 0 {
		return
	}
	if len(b) < 16 {
		b = append(make([]byte, 0, 16), b...)[:16]
	}
	state := s.state.bytes()
	subtle.XORBytes(b, b, state[:])
	mac := s.aead.Seal(s.tag[:0], s.zeroNonce[:], nil, b)
	subtle.XORBytes(b, b, state[:])
	lengths := element{uint64(len(b)) * 8, 0}
	s.state = elementOf(mac).xor(s.macMask).mul(s.inverseH).xor(lengths)
}

// verify tells whether tag is that of all that was opened.
func (s *gcmStream) verify(tag []byte) bool {
	lengths := element{uint64(s.aadSize) * 8, s.size * 8}
	want := s.state.xor(lengths).mul(s.h).xor(s.tagMask).bytes()
	return subtle.ConstantTimeCompare(want[:], tag) == 1
}

// element is one of GCM's field of 2¹²⁸, as two numbers big-endian: the top bit is the coefficient of 1.
type element [2]uint64

func elementOf(b []byte) element {
	return element{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

func (x element) bytes() (b [16]byte) {
	binary.BigEndian.PutUint64(b[:], x[0])
	binary.BigEndian.PutUint64(b[8:], x[1])
	return b
}

func (x element) xor(y element) element { return element{x[0] ^ y[0], x[1] ^ y[1]} }

// mul takes the same time for all elements.
func (x element) mul(y element) (z element) {
	for i := range 128 {
		take := -(x[i/64] >> (63 - i%64) & 1)
		z[0] ^= y[0] & take
		z[1] ^= y[1] & take
		reduce := -(y[1] & 1)
		y[1] = y[1]>>1 | y[0]<<63
		y[0] = y[0]>>1 ^ reduce&(0xe1<<56)
	}
	return z
}

// inverse is x to the power of 2¹²⁸-2, 0 for 0 (an H of 0 does not come up: one key in 2¹²⁸ has it).
func (x element) inverse() element {
	power, square := element{1 << 63, 0}, x
	for range 127 {
		square = square.mul(square)
		power = power.mul(square)
	}
	return power
}
