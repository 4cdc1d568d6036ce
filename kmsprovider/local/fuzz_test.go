package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// A document is either refused or written back as the very same bytes.
func FuzzDecodeDocument(f *testing.F) {
	_, b := twoKeys(f)
	s := newStore(f)
	s.fill()
	all, err := os.ReadFile(s.Path())
	if err != nil {
		f.Fatal(err)
	}
	seeds := [][]byte{
		b,
		all,
		forge(f, all, func(d *document) { d.Keys[0].Policy = "" }),
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
		c := d.clone()
		if again, err := c.encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a clone is another: %v", err)
		}
		for i := range d.Keys { // nothing of what was accepted panics
			d.Keys[i].due()
			d.Keys[i].metadata(d.Account, d.Created)
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

// A marker or a grant token that is accepted is spelled in one way alone.
func FuzzParseGrantToken(f *testing.F) {
	k, _ := twoKeys(f)
	token, err := k.newGrantToken(keyUUID{1}, strings.Repeat("ab", 32))
	if err != nil {
		f.Fatal(err)
	}
	if p, err := parseGrantToken(token); err != nil || p.key != (keyUUID{1}) || p.grantID != strings.Repeat("ab", 32) {
		f.Fatalf("%+v, %v", p, err)
	}
	f.Add(token)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseGrantToken(s)
		if err == nil && (len(p.grantID) != 64 || len(s) != len(token)) {
			t.Fatalf("%q: %+v", s, p)
		}
	})
}
