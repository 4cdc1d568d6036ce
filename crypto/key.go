package crypto

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
)

// KeySize is the length of every Key in bytes.
const KeySize = 32

const redacted = "crypto.Key(redacted)"

// Key is 32 secret bytes. Use it by pointer and wipe it when its time is over.
//
// Wipe must not run beside another use of the same key; to hand a key to an owner with a life of its own, Clone it.
// The zero Key is not usable.
type Key struct {
	// secret is a function because no printer sees through one. fmt cannot call the methods of a Key in another
	// struct's unexported field, and for verbs like %s it would follow a pointer to the bytes.
	secret func() *secret
}

type secret struct {
	bytes [KeySize]byte
	wiped atomic.Bool
}

func emptyKey() *Key {
	s := new(secret)
	return &Key{secret: func() *secret { return s }}
}

// NewKey copies b, which must have 32 bytes (else ErrMalformed). The caller wipes b.
func NewKey(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fmt.Errorf("new key: %d bytes, want %d: %w", len(b), KeySize, ErrMalformed)
	}
	k := emptyKey()
	copy(k.Bytes(), b)
	return k, nil
}

// GenerateKey draws a key from random.
func GenerateKey(random io.Reader) (*Key, error) {
	k := emptyKey()
	if _, err := io.ReadFull(random, k.Bytes()); err != nil {
		k.Wipe()
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return k, nil
}

// Bytes aliases the 32 bytes of the key, for a KMS call or an HMAC. Do not keep them: they turn to zeros with Wipe.
func (k *Key) Bytes() []byte { return k.secret().bytes[:] }

// Wipe overwrites the key with zeros. Every later use but Bytes and Wipe panics, since it would encrypt under a key
// that everybody knows.
func (k *Key) Wipe() {
	if k == nil || k.secret == nil {
		return
	}
	s := k.secret()
	s.wiped.Store(true)
	clear(s.bytes[:])
}

// Clone copies the key; the copy is wiped on its own.
func (k *Key) Clone() *Key {
	c := emptyKey()
	copy(c.Bytes(), k.material())
	return c
}

// Equal compares two keys in constant time. (Package reflect finds every two keys different.)
func (k *Key) Equal(other *Key) bool {
	return subtle.ConstantTimeCompare(k.material(), other.material()) == 1
}

// material gives the bytes to the cryptography of this package.
func (k *Key) material() []byte {
	s := k.secret()
	if s.wiped.Load() {
		panic("crypto: use of a wiped key")
	}
	return s.bytes[:]
}

// String, GoString, Format, MarshalText and LogValue keep the key out of logs, whatever the verb. They have value
// receivers, so that a copied Key is covered as well.

// String redacts.
func (k Key) String() string { return redacted }

// GoString redacts.
func (k Key) GoString() string { return redacted }

// Format redacts under every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText redacts.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue redacts.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }
