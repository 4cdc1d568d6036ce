package age_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/age"
)

func FuzzUnwrap(f *testing.F) {
	id, recipient := identity(f)
	p, ctx, ec := age.New(given(id)), context.Background(), kmsprovider.Context{"a": "b"}
	wrapped, err := p.Encrypt(ctx, recipient, []byte("a key"), ec)
	if err != nil {
		f.Fatal(err)
	}
	if plain, err := p.Decrypt(ctx, recipient, wrapped, ec); err != nil || string(plain) != "a key" {
		f.Fatalf("the seed opens to %q, %v", plain, err)
	}
	f.Add(wrapped)
	f.Add(wrapped[:len(wrapped)-1])
	f.Add([]byte("age-encryption.org/v1\n-> X25519 \n\n--- \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if string(b) == string(wrapped) {
			return
		}
		if plain, err := p.Decrypt(ctx, recipient, b, ec); err == nil {
			t.Fatalf("a forged key opens to %q", plain)
		} else if !errors.Is(err, kmsprovider.ErrInvalidCiphertext) {
			t.Fatalf("error of another kind: %v", err)
		}
	})
}

func FuzzIdentityFile(f *testing.F) {
	id, _ := identity(f)
	path := filepath.Join(f.TempDir(), "identity")
	read := func(t testing.TB, b []byte) (int, error) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		ids, err := age.FromFile(path)()
		return len(ids), err
	}
	good := "# created\n" + id.String() + "\n"
	if n, err := read(f, []byte(good)); n != 1 || err != nil {
		f.Fatalf("%d identities in the seed, %v", n, err)
	}
	f.Add([]byte(good))
	f.Add([]byte(good[:30]))
	f.Add([]byte("AGE-SECRET-KEY-PQ-1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := read(t, b); (n > 0) != (err == nil) {
			t.Fatalf("%d identities, %v", n, err)
		}
	})
}
