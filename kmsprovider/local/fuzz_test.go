package local

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"kmsfs/kmsprovider"
)

// A document is either refused or written back as the very same bytes.
func FuzzDecodeDocument(f *testing.F) {
	_, b := twoKeys(f)
	seeds := [][]byte{
		b,
		forge(f, b, func(d *document) { d.Keys, d.Aliases = nil, nil }),
		forge(f, b, func(d *document) { d.Keys[0].Description = "<\u2028>" }),
	}
	for _, seed := range seeds {
		if d, err := decodeDocument(seed); err != nil || len(seed) == 0 || d.ID == "" {
			f.Fatalf("a seed is no document: %v", err)
		}
		f.Add(seed)
	}
	f.Add([]byte(`{"format":"kmsfs keystore","version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDocument(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		if again, err := d.encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("written back otherwise: %v", err)
		}
		if err := d.KDF.params().check(); err != nil {
			t.Fatalf("accepted: %v", err)
		}
		if c := d.clone(); len(c.Keys) != len(d.Keys) {
			t.Fatal("clone")
		}
	})
}

func FuzzParseBlob(f *testing.F) {
	k, _ := twoKeys(f)
	var seeds [][]byte
	for _, size := range []int{1, 32, 4096} {
		wrapped, err := k.Encrypt(context.Background(), DefaultAlias, make([]byte, size), nil)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, wrapped)
	}
	for _, seed := range seeds {
		if _, ok := parseBlob(seed); !ok || len(seed) == 0 {
			f.Fatal("a seed is no wrapped key")
		}
		f.Add(seed)
	}
	own := make(map[string]bool)
	for _, seed := range seeds {
		own[string(seed)] = true
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseBlob(b)
		if !ok {
			if _, err := k.Decrypt(context.Background(), DefaultAlias, b, nil); !errors.Is(err, kmsprovider.ErrInvalidCiphertext) {
				t.Fatalf("error of another kind: %v", err)
			}
		} else if again := append(appendBlobHeader(nil, p.key, p.material), p.sealed...); !bytes.Equal(again, b) || !bytes.Equal(p.header, b[:len(p.header)]) {
			t.Fatal("the parts are not the whole")
		}
		if _, err := k.Decrypt(context.Background(), DefaultAlias, b, nil); err == nil && !own[string(b)] {
			t.Fatal("a forged wrapped key opens")
		}
	})
}
