package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// aesSIV is deterministic authenticated encryption by AES-SIV (RFC 5297). A sealed message is V ‖ ciphertext, 16 bytes
// longer than the plaintext: V is S2V of associated data and plaintext, and where AES-CTR begins. Both key schedules and
// all of S2V that hangs on the key alone are made once. At most 2^48 messages under one key (section 7). Safe for
// concurrent use.
type aesSIV struct {
	mac, ctr       cipher.Block
	whole, partial [aes.BlockSize]byte // subkeys of CMAC (RFC 4493, section 2.3), for whole and padded last blocks
	zero           [aes.BlockSize]byte // CMAC of the zero block, where S2V begins
}

const (
	sivSize    = aes.BlockSize // V, before the ciphertext
	sivKeySize = 64            // bytes of AES-256-SIV: the key of S2V, then that of CTR
)

// sivWork keeps AES blocks off the stack, from which a call through cipher.Block would move them at every block.
type sivWork struct {
	x       [aes.BlockSize]byte       // the state of a CMAC, and its result
	d       [aes.BlockSize]byte       // what S2V has come to
	tail    [2*aes.BlockSize - 1]byte // the end of a plaintext
	counter [aes.BlockSize]byte
	stream  [aes.BlockSize]byte
}

var sivWorks = sync.Pool{New: func() any { return new(sivWork) }}

// newAESSIV takes a key of 32, 48 or 64 bytes, and keeps nothing of it but its expansion.
func newAESSIV(key []byte) *aesSIV {
	s := &aesSIV{mac: newAES(key[:len(key)/2]), ctr: newAES(key[len(key)/2:])}
	w := sivWorks.Get().(*sivWork)
	defer sivWorks.Put(w)
	clear(w.x[:])
	s.mac.Encrypt(w.x[:], w.x[:])
	s.whole = w.x
	double(&s.whole)
	s.partial = s.whole
	double(&s.partial)
	clear(w.d[:])
	s.cmac(w, w.d[:])
	s.zero = w.x
	return s
}

func newAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("crypto: " + err.Error()) // only for a wrong key length
	}
	return block
}

// wipe overwrites the keys; the cipher must not be used beside or after it.
func (s *aesSIV) wipe() {
	erase(s.mac)
	erase(s.ctr)
	clear(s.whole[:])
	clear(s.partial[:])
	clear(s.zero[:])
}

// seal appends V ‖ ciphertext to dst. Neither plaintext nor associated data may overlap the room behind dst. Allocates
// nothing where there is room.
func (s *aesSIV) seal(dst, plaintext []byte, ad ...[]byte) []byte {
	w := sivWorks.Get().(*sivWork)
	defer sivWorks.Put(w)
	s.s2v(w, plaintext, ad)
	dst = append(dst, w.x[:]...)
	n := len(dst)
	dst = append(dst, plaintext...)
	s.xorStream(w, dst[n:])
	return dst
}

// open appends the plaintext of what seal gave to dst, or leaves the room behind dst zeroed and says ErrAuthentication.
// Allocates nothing where there is room.
func (s *aesSIV) open(dst, sealed []byte, ad ...[]byte) ([]byte, error) {
	if len(sealed) < sivSize {
		return nil, ErrAuthentication
	}
	w := sivWorks.Get().(*sivWork)
	defer sivWorks.Put(w)
	w.x = [sivSize]byte(sealed)
	n := len(dst)
	dst = append(dst, sealed[sivSize:]...)
	s.xorStream(w, dst[n:])
	s.s2v(w, dst[n:], ad)
	if subtle.ConstantTimeCompare(w.x[:], sealed[:sivSize]) != 1 {
		clear(dst[n:])
		return nil, ErrAuthentication
	}
	return dst, nil
}

// s2v leaves S2V (section 2.4) of the associated data and the plaintext in w.x.
func (s *aesSIV) s2v(w *sivWork, plaintext []byte, ad [][]byte) {
	w.d = s.zero
	for _, a := range ad {
		s.cmac(w, a)
		double(&w.d)
		subtle.XORBytes(w.d[:], w.d[:], w.x[:])
	}
	clear(w.x[:])
	if len(plaintext) < aes.BlockSize {
		double(&w.d)
		subtle.XORBytes(w.d[:], w.d[:], plaintext)
		w.d[len(plaintext)] ^= 0x80
		s.last(w, w.d[:])
		return
	}
	// d goes to the last 16 bytes, which may lie in two blocks.
	before := (len(plaintext) - aes.BlockSize) &^ (aes.BlockSize - 1)
	s.blocks(w, plaintext[:before])
	tail := w.tail[:copy(w.tail[:], plaintext[before:])]
	end := tail[len(tail)-aes.BlockSize:]
	subtle.XORBytes(end, end, w.d[:])
	if len(tail) > aes.BlockSize {
		s.blocks(w, tail[:aes.BlockSize])
		tail = tail[aes.BlockSize:]
	}
	s.last(w, tail)
}

// cmac leaves AES-CMAC (RFC 4493) of a message in w.x.
func (s *aesSIV) cmac(w *sivWork, message []byte) {
	clear(w.x[:])
	before := 0
	if len(message) > 0 {
		before = (len(message) - 1) &^ (aes.BlockSize - 1)
	}
	s.blocks(w, message[:before])
	s.last(w, message[before:])
}

// blocks takes whole blocks of a message, but not its last, into the CMAC in w.x.
func (s *aesSIV) blocks(w *sivWork, message []byte) {
	for ; len(message) > 0; message = message[aes.BlockSize:] {
		subtle.XORBytes(w.x[:], w.x[:], message[:aes.BlockSize])
		s.mac.Encrypt(w.x[:], w.x[:])
	}
}

// last ends a CMAC with the last block of its message, of 0 to 16 bytes.
func (s *aesSIV) last(w *sivWork, block []byte) {
	subkey := &s.whole
	if len(block) < aes.BlockSize {
		w.x[len(block)] ^= 0x80
		subkey = &s.partial
	}
	subtle.XORBytes(w.x[:], w.x[:], block)
	subtle.XORBytes(w.x[:], w.x[:], subkey[:])
	s.mac.Encrypt(w.x[:], w.x[:])
}

// xorStream XORs AES-CTR into b, from the counter that the V in w.x gives: without its bits 31 and 63, so that nothing
// is ever carried out of the lower half (section 2.5).
func (s *aesSIV) xorStream(w *sivWork, b []byte) {
	w.counter = w.x
	w.counter[8] &= 0x7f
	w.counter[12] &= 0x7f
	at := binary.BigEndian.Uint64(w.counter[8:])
	for len(b) > 0 {
		s.ctr.Encrypt(w.stream[:], w.counter[:])
		b = b[subtle.XORBytes(b, b, w.stream[:]):]
		at++
		binary.BigEndian.PutUint64(w.counter[8:], at)
	}
}

// double multiplies by x in GF(2^128), as CMAC and S2V do, in constant time.
func double(b *[aes.BlockSize]byte) {
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	binary.BigEndian.PutUint64(b[:8], high<<1|low>>63)
	binary.BigEndian.PutUint64(b[8:], low<<1^0x87&-(high>>63))
}
