package envelope

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kmsfs/kmsprovider"
)

// EncryptedDataKey is the data key of a message, wrapped under one wrapping key.
type EncryptedDataKey struct {
	Provider   string // "aws-kms", or the namespace of a raw key
	Info       []byte // which key of the provider: an ARN, for aws-kms
	Ciphertext []byte
}

// Keyring wraps and opens data keys. It is safe for concurrent use.
type Keyring interface {
	// OnEncrypt makes the data key where m has none and adds it wrapped to m.Keys; else it only wraps it. After an
	// error m may hold a data key, which the caller wipes.
	OnEncrypt(ctx context.Context, m *EncryptionMaterials) error
	// OnDecrypt sets m.DataKey from the first of keys that it can open. ErrNoKey if there is none.
	OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error
}

// wraps tells how many keys a keyring adds to a message, as far as it says so. The keyrings of this package do.
func wraps(k Keyring) int {
	if counted, ok := k.(interface{ wraps() int }); ok {
		return counted.wraps()
	}
	return 0
}

// openFirst sets m.DataKey to what the first of keys opens to. The function try opens one, or returns nil without an
// error where the key is not its own. Errors: ErrNoKey with every cause, and ctx's own.
func (m *DecryptionMaterials) openFirst(ctx context.Context, keys []EncryptedDataKey, try func(EncryptedDataKey) ([]byte, error)) error {
	if m.DataKey != nil {
		return errors.New("open data key: there is one already")
	}
	var causes []error
	for _, k := range keys {
		dataKey, err := try(k)
		if n := len(dataKey); err == nil && dataKey != nil && n != m.Suite.KeySize() {
			clear(dataKey)
			err = fmt.Errorf("open data key of %s: it has %d bytes, and %s takes %d: %w",
				k, n, m.Suite, m.Suite.KeySize(), kmsprovider.ErrInvalidCiphertext)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("open data key: %w", ctx.Err())
		case err != nil:
			causes = append(causes, err)
		case dataKey != nil:
			m.DataKey = dataKey
			return nil
		}
	}
	return &noKeyError{causes}
}

// String names the wrapping key. What it is made of may come from a message: it is quoted, and shortened.
func (k EncryptedDataKey) String() string {
	return fmt.Sprintf("%q of %q", shorten(string(k.Info)), shorten(k.Provider))
}

// noKeyError is ErrNoKey with why each wrapped key that could have opened did not.
type noKeyError struct{ causes []error }

// shownCauses bounds a message: there may be 65,535 wrapped keys.
const shownCauses = 8

func (e *noKeyError) Error() string {
	if len(e.causes) == 0 {
		return ErrNoKey.Error() + ": none is wrapped under a key that may be used here"
	}
	var parts []string
	for _, err := range e.causes[:min(len(e.causes), shownCauses)] {
		parts = append(parts, err.Error())
	}
	if more := len(e.causes) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return ErrNoKey.Error() + ": " + strings.Join(parts, "; ")
}

func (e *noKeyError) Unwrap() []error { return append([]error{ErrNoKey}, e.causes...) }

// causesOf are those of a noKeyError, else err itself.
func causesOf(err error) []error {
	if none, ok := errors.AsType[*noKeyError](err); ok {
		return slices.Clone(none.causes)
	}
	return []error{err}
}
