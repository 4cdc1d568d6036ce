package envelope

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// The oracle is the standard library's GCM, which takes a ciphertext whole.
func TestStreamedGCMIsGCM(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	for _, keySize := range []int{16, 24, 32} {
		for n := range 200 {
			block, aead, err := newCipher(fill(keySize))
			if err != nil {
				t.Fatal(err)
			}
			nonce, aad, plaintext := fill(nonceSize), fill(rng.IntN(80)), fill(n*n/40)
			sealed := aead.Seal(nil, nonce, plaintext, aad)
			text, tag := sealed[:len(plaintext)], sealed[len(plaintext):]

			s := newGCMStream(block, aead, nonce, aad)
			for rest := text; len(rest) > 0; {
				piece := rest[:min(len(rest), 16*(1+rng.IntN(9)))]
				rest = rest[len(piece):]
				s.open(piece)
			}
			if !bytes.Equal(text, plaintext) || !s.verify(tag) {
				t.Fatalf("AES-%d, %d bytes, %d of associated data: plaintext right %t, tag right %t",
					keySize*8, len(plaintext), len(aad), bytes.Equal(text, plaintext), s.verify(tag))
			}
			tag[rng.IntN(tagSize)] ^= 1 << rng.IntN(8)
			if s.verify(tag) {
				t.Fatal("a wrong tag was taken")
			}
		}
	}
}

func TestInverseIsTheInverse(t *testing.T) {
	one := element{1 << 63, 0}
	for _, x := range []element{one, {0, 1}, {1, 0}, {0xfedcba9876543210, 0x0123456789abcdef}} {
		if got := x.mul(x.inverse()); got != one {
			t.Errorf("%x times its inverse is %x", x, got)
		}
	}
}
