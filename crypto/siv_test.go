package crypto

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

func TestAESSIVGivesTheValuesOfRFC5297(t *testing.T) {
	for _, c := range []struct {
		name, key, plain, sealed string
		ad                       []string
	}{
		{"A.1", "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
			"112233445566778899aabbccddee",
			"85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
			[]string{"101112131415161718191a1b1c1d1e1f2021222324252627"}},
		{"A.2", "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
			"7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
			"7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
			[]string{"00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
				"102030405060708090a0", "09f911029d74e35bd84156c5635688c0"}},
	} {
		s := newAESSIV(unhex(c.key))
		var ad [][]byte
		for _, a := range c.ad {
			ad = append(ad, unhex(a))
		}
		if got := s.seal(nil, unhex(c.plain), ad...); !bytes.Equal(got, unhex(c.sealed)) {
			t.Errorf("%s: sealed is %x", c.name, got)
		}
		if got, err := s.open(nil, unhex(c.sealed), ad...); err != nil || !bytes.Equal(got, unhex(c.plain)) {
			t.Errorf("%s: opened is %x, %v", c.name, got, err)
		}
	}
}

func TestAESSIVAgreesWithAnotherImplementation(t *testing.T) {
	rng := rand.New(rand.NewChaCha8([32]byte{1}))
	random := newStream(2)
	draw := func(n int) []byte {
		b := make([]byte, n)
		_, _ = random.Read(b)
		return b
	}
	for i := range 5000 {
		size := rng.IntN(300)
		if i < 300 {
			size = i // every one of them once
		}
		key, plain, ad := draw(sivKeySize), draw(size), draw(rng.IntN(50))
		s, other := newAESSIV(key), must(subtle.NewAESSIV(key))
		sealed := s.seal([]byte("before"), plain, ad)[len("before"):]
		if want := must(other.EncryptDeterministically(plain, ad)); !bytes.Equal(sealed, want) {
			t.Fatalf("%d bytes with %d: sealed is %x, the other's %x", len(plain), len(ad), sealed, want)
		}
		if got, err := s.open([]byte("before"), sealed, ad); err != nil || !bytes.Equal(got, append([]byte("before"), plain...)) {
			t.Fatalf("%d bytes with %d: opened is %x, %v", len(plain), len(ad), got, err)
		}
	}
}

func TestAESSIVOpensOnlyWhatWasSealedSo(t *testing.T) {
	s, ad := newAESSIV(randomBytes(1, sivKeySize)), []byte("associated")
	for _, size := range []int{0, 1, 15, 16, 17, 40} {
		plain := randomBytes(2, size)
		sealed := s.seal(nil, plain, ad)
		refused := func(what string, sealed []byte, ad ...[]byte) {
			t.Helper()
			room := bytes.Repeat([]byte{0xee}, 80)
			_, err := s.open(room[:3], sealed, ad...)
			wantError(t, err, ErrAuthentication)
			if len(sealed) < sivSize {
				return
			}
			n := len(sealed) - sivSize
			if !bytes.Equal(room, append(append([]byte{0xee, 0xee, 0xee}, make([]byte, n)...), bytes.Repeat([]byte{0xee}, 77-n)...)) {
				t.Errorf("%s, %d bytes: left behind is %x", what, size, room)
			}
		}
		eachTampering(sealed, func(_ int, tampered []byte) { refused("tampered", tampered, ad) })
		refused("other associated data", sealed, ad[1:])
		refused("associated data in two", sealed, ad[:5], ad[5:])
		refused("no associated data", sealed)
		refused("cut", sealed[:len(sealed)-1], ad)
		refused("with a byte more", append(bytes.Clone(sealed), 0), ad)
	}
	for size := range sivSize {
		_, err := s.open(nil, make([]byte, size), ad)
		wantError(t, err, ErrAuthentication)
	}
}

func TestAESSIVServesManyAtOnce(t *testing.T) {
	s := newAESSIV(randomBytes(1, sivKeySize))
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			plain, ad := randomBytes(byte(i), 20+i), []byte{byte(i)}
			want := s.seal(nil, plain, ad)
			for range 500 {
				if !bytes.Equal(s.seal(nil, plain, ad), want) {
					t.Error("a message is sealed differently beside others")
				}
				if got, err := s.open(nil, want, ad); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("opened is %x, %v", got, err)
				}
			}
		})
	}
	all.Wait()
}

func TestAESSIVAllocatesNothing(t *testing.T) {
	s, ad := newAESSIV(randomBytes(1, sivKeySize)), testDir
	for _, size := range []int{0, 15, 16, 32, 33, 256} {
		plain := randomBytes(2, size)
		sealed, opened := make([]byte, 0, size+sivSize), make([]byte, 0, size)
		wantNoAllocs(t, "sealing", func() { sealed = s.seal(sealed[:0], plain, ad[:]) })
		wantNoAllocs(t, "opening", func() { opened = must(s.open(opened[:0], sealed, ad[:])) })
	}
}
