package crypto

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

func TestXAESMatchesPublishedVectors(t *testing.T) {
	for _, v := range []struct{ key, k1, aad, ciphertext string }{
		{"01", "e531954aca063d5b8d9c47a47d4cc6f0", "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{"03", "23810ec50edb99f374409466ed1f4b7b", "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		k := must(NewKey(bytes.Repeat(unhex(v.key), KeySize)))
		nonce, plain := []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM")
		x := NewXAES(k)
		if got := hex.EncodeToString(x.k1[:]); got != v.k1 {
			t.Errorf("key %s…: K1 %s, want %s", v.key, got, v.k1)
		}
		sealed, err := x.Seal([]byte("before"), bytes.NewReader(nonce), plain, []byte(v.aad))
		if want := "before" + string(nonce) + string(unhex(v.ciphertext)); err != nil || string(sealed) != want {
			t.Errorf("key %s…: sealed %x, %v; want %x", v.key, sealed, err, want)
		}
		opened, err := x.Open([]byte("before"), append(nonce, unhex(v.ciphertext)...), []byte(v.aad))
		if err != nil || string(opened) != "before"+string(plain) {
			t.Errorf("key %s…: opened %q, %v", v.key, opened, err)
		}
	}
}

// TestXAESMatchesAccumulatedVectors is C2SP's randomized test: SHAKE128 of nothing gives the messages, SHAKE128 of all
// ciphertexts is published.
func TestXAESMatchesAccumulatedVectors(t *testing.T) {
	rounds, want := 10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"
	if !raceDetector && !testing.Short() {
		rounds, want = 1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15"
	}
	source, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	buf := make([]byte, 256)
	read := func(n int) []byte {
		_, _ = source.Read(buf[:n])
		return bytes.Clone(buf[:n])
	}
	for range rounds {
		k, nonce := must(NewKey(read(KeySize))), read(NonceSize)
		plain := read(int(read(1)[0]))
		aad := read(int(read(1)[0]))
		x := NewXAES(k)
		sealed := must(x.Seal(nil, bytes.NewReader(nonce), plain, aad))
		_, _ = sum.Write(sealed[NonceSize:])
		if opened, err := x.Open(nil, sealed, aad); err != nil || !bytes.Equal(opened, plain) {
			t.Fatalf("opened %x, %v; want %x", opened, err, plain)
		}
	}
	got := make([]byte, 32)
	_, _ = sum.Read(got)
	if hex.EncodeToString(got) != want {
		t.Errorf("hash of %d ciphertexts: %x, want %s", rounds, got, want)
	}
}

func TestXAESRefusesWhatWasTamperedWith(t *testing.T) {
	x := NewXAES(testKey(1))
	sealed := must(x.Seal(nil, newStream(1), []byte("a message"), []byte("context")))
	eachTampering(sealed, func(at int, tampered []byte) {
		if _, err := x.Open(nil, tampered, []byte("context")); err != ErrAuthentication {
			t.Errorf("byte %d: %v", at, err)
		}
	})
	for n := range sealed {
		if _, err := x.Open(nil, sealed[:n], []byte("context")); err != ErrAuthentication {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	if _, err := x.Open(nil, sealed, []byte("other")); err != ErrAuthentication {
		t.Errorf("other context: %v", err)
	}
	if _, err := NewXAES(testKey(2)).Open(nil, sealed, []byte("context")); err != ErrAuthentication {
		t.Errorf("other key: %v", err)
	}
}

func TestXAESDrawsAFreshNonceForEveryMessage(t *testing.T) {
	x, random := NewXAES(testKey(1)), newStream(1)
	seen := map[string]bool{}
	for range 100 {
		sealed := must(x.Seal(nil, random, nil, nil))
		if len(sealed) != 40 {
			t.Fatalf("%d bytes for an empty message", len(sealed))
		}
		seen[string(sealed[:12])], seen[string(sealed[12:24])] = true, true
	}
	if len(seen) != 200 {
		t.Errorf("%d distinct halves of nonces, want 200", len(seen))
	}
	if _, err := x.Seal(nil, dry{}, nil, nil); err == nil {
		t.Error("sealed without randomness")
	} else {
		wantError(t, err, errNoRandom)
	}
}

func FuzzXAESOpen(f *testing.F) {
	x := NewXAES(testKey(1))
	parses := func(b []byte) bool { _, err := x.Open(nil, b, nil); return err == nil }
	addSeeds(f, parses, must(x.Seal(nil, newStream(1), []byte("seed"), nil)), make([]byte, 39), make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := x.Open(nil, b, nil)
		if err != nil {
			wantError(t, err, ErrAuthentication)
			return
		}
		if !bytes.Equal(xaesSeal(testKey(1), b[:NonceSize], plain, nil), b) {
			t.Error("seals to other bytes than it was opened from")
		}
	})
}
