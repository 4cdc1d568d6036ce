package crypto

import (
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
)

// KeySize is the length of every Key in bytes.
const KeySize = 32

const redacted = "crypto.Key(redacted)"

// Key is 32 secret bytes. Use it by pointer and wipe it when its time is over. The bytes lie behind a pointer of their
// own, so that not even a reflecting printer that meets a Key inside another struct shows them.
//
// Wipe must not run beside another use of the same key; to hand a key to an owner with a life of its own, Clone it.
// The zero Key is not usable.
type Key struct {
	secret *secret
}

type secret struct {
	bytes [KeySize]byte
	wiped atomic.Bool
}

// NewKey copies b, which must have 32 bytes (else ErrMalformed). The caller wipes b.
func NewKey(b []byte) (*Key, error) {
	if len(b) != KeySize {
		return nil, fmt.Errorf("new key: %d bytes, want %d: %w", len(b), KeySize, ErrMalformed)
	}
	k := &Key{secret: new(secret)}
	copy(k.secret.bytes[:], b)
	return k, nil
}

// GenerateKey draws a key from random.
func GenerateKey(random io.Reader) (*Key, error) {
	k := &Key{secret: new(secret)}
	if _, err := io.ReadFull(random, k.secret.bytes[:]); err != nil {
		k.Wipe()
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return k, nil
}

// Bytes aliases the 32 bytes of the key, for a KMS call or an HMAC. Do not keep them: they turn to zeros with Wipe.
func (k *Key) Bytes() []byte { return k.secret.bytes[:] }

// Wipe overwrites the key with zeros. Every later use but Bytes and Wipe panics, since it would encrypt under a key
// that everybody knows.
func (k *Key) Wipe() {
	if k == nil || k.secret == nil {
		return
	}
	k.secret.wiped.Store(true)
	clear(k.secret.bytes[:])
}

// Clone copies the key; the copy is wiped on its own.
func (k *Key) Clone() *Key {
	c := &Key{secret: new(secret)}
	copy(c.secret.bytes[:], k.material())
	return c
}

// material gives the bytes to the cryptography of this package.
func (k *Key) material() []byte {
	if k.secret.wiped.Load() {
		panic("crypto: use of a wiped key")
	}
	return k.secret.bytes[:]
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
