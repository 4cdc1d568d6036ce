package crypto

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"
)

func TestAManifestChunkOpensInItsPlaceAlone(t *testing.T) {
	key, err := GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	volume, other := ID{1}, ID{2}
	c := NewManifestCipher(key, volume)
	at := ManifestChunk{Manifest: ID{3}, Generation: 4, Index: 5}
	plain := []byte("entries")
	sealed, err := c.Seal(nil, rand.Reader, plain, at)
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len(plain)+40 {
		t.Errorf("it has %d bytes", len(sealed))
	}
	got, err := c.Open(nil, sealed, at)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("it opens to %q, %v", got, err)
	}
	for what, change := range map[string]func(*ManifestChunk){
		"another manifest":   func(a *ManifestChunk) { a.Manifest = ID{9} },
		"another generation": func(a *ManifestChunk) { a.Generation++ },
		"another place":      func(a *ManifestChunk) { a.Index-- },
		"the end":            func(a *ManifestChunk) { a.Last = true },
	} {
		there := at
		change(&there)
		if _, err := c.Open(nil, sealed, there); !errors.Is(err, ErrAuthentication) {
			t.Errorf("as that of %s: %v", what, err)
		}
	}
	if _, err := NewManifestCipher(key, other).Open(nil, sealed, at); !errors.Is(err, ErrAuthentication) {
		t.Errorf("as that of another volume: %v", err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		if _, err := c.Open(nil, sealed, at); !errors.Is(err, ErrAuthentication) {
			t.Errorf("with byte %d changed: %v", i, err)
		}
		sealed[i] ^= 1
	}
}
