package crypto

import (
	"crypto/sha256"
	"hash"
	"sync"
)

// MAC is HMAC-SHA-256 (RFC 2104) of the parts, one after the other, under the key. Unlike crypto/hmac, which keeps the
// key twice in memory that cannot be wiped, it leaves no copy of the key, nor of a part of up to 63 bytes.
func (k *Key) MAC(parts ...[]byte) [sha256.Size]byte {
	scrubStack() // a stack that grew later would leave the old one, with what is on it
	out := k.mac(parts)
	scrubStack()
	return out
}

//go:noinline
func (k *Key) mac(parts [][]byte) [sha256.Size]byte {
	m := macs.Get().(*macState)
	copy(m.pad[:], k.material())
	flip(&m.pad, 0x36)
	m.sum(parts...)
	flip(&m.pad, 0x36^0x5c)
	m.sum(m.out[:])
	out := m.out
	m.wipe()
	macs.Put(m)
	return out
}

// macState is what a MAC is computed in, used again and again, since hashing through an interface makes all of it escape.
type macState struct {
	hash hash.Hash // SHA-256
	pad  [sha256.BlockSize]byte
	out  [sha256.Size]byte
}

var macs = sync.Pool{New: func() any { return &macState{hash: sha256.New()} }}

// sum makes out the SHA-256 of the pad, which is a whole block and so is not kept, and the parts, of which out may be one.
func (m *macState) sum(parts ...[]byte) {
	m.hash.Reset()
	m.hash.Write(m.pad[:])
	for _, p := range parts {
		m.hash.Write(p)
	}
	m.hash.Sum(m.out[:0])
}

func (m *macState) wipe() {
	blank(m.hash)
	clear(m.pad[:])
	clear(m.out[:])
}

func flip(pad *[sha256.BlockSize]byte, by byte) {
	for i := range pad {
		pad[i] ^= by
	}
}

// blank overwrites what a hash keeps: its state, and up to 63 bytes of a message.
func blank(h hash.Hash) {
	h.Reset()
	h.Write(zeros[:])
}

var zeros [sha256.BlockSize - 1]byte

// scrubStack overwrites the stack that calls before it have used: finishing a hash copies it there.
//
//go:noinline
func scrubStack() {
	var b [4 << 10]byte
	touch(&b)
}

//go:noinline
func touch(b *[4 << 10]byte) { clear(b[:]) }

// hkdfExtract is HKDF-Extract (RFC 5869) with SHA-256; salt and result are keys.
func hkdfExtract(salt, secret *Key) *Key {
	prk := salt.MAC(secret.material())
	defer clear(prk[:])
	return keyOf(prk[:])
}

// hkdfExpand fills out, of at most 255 times 32 bytes, with HKDF-Expand (RFC 5869) of the key, with SHA-256.
func hkdfExpand(out []byte, prk *Key, info []byte) {
	var t [sha256.Size]byte
	defer clear(t[:])
	for i := byte(1); len(out) > 0; i++ {
		if i == 1 {
			t = prk.MAC(info, []byte{i})
		} else {
			t = prk.MAC(t[:], info, []byte{i})
		}
		out = out[copy(out, t[:]):]
	}
}

// keyOf copies 32 bytes.
func keyOf(b []byte) *Key {
	k, err := NewKey(b)
	if err != nil {
		panic("crypto: " + err.Error()) // the length is right by construction
	}
	return k
}
