package envelope

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"kmsfs/kmsprovider"
)

// EncryptionMaterials is what a message is encrypted with.
type EncryptionMaterials struct {
	Suite        Suite
	Context      kmsprovider.Context // whole, aws-crypto-public-key included
	RequiredKeys []string            // of Context, sorted: authenticated, not stored
	DataKey      []byte              `json:"-"` // Suite.KeySize() bytes; Wipe clears it
	Keys         []EncryptedDataKey
	SigningKey   *ecdsa.PrivateKey `json:"-"` // nil unless Suite.Signed()
}

// Wipe clears the data key. The signing key cannot be: crypto/ecdsa keeps it where it likes. It is of one message alone.
func (m *EncryptionMaterials) Wipe() { clear(m.DataKey) }

// Format redacts the keys under every verb.
func (m EncryptionMaterials) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "envelope.EncryptionMaterials(redacted)")
}

// DecryptionMaterials is what a message is decrypted with.
type DecryptionMaterials struct {
	Suite        Suite
	Context      kmsprovider.Context // whole: what the message stores, and what was given beside it
	RequiredKeys []string            // of Context, sorted: authenticated, not stored
	DataKey      []byte              `json:"-"` // Suite.KeySize() bytes; Wipe clears it
	VerifyKey    *ecdsa.PublicKey    // nil unless Suite.Signed()
}

// Wipe clears the data key.
func (m *DecryptionMaterials) Wipe() { clear(m.DataKey) }

// Format redacts the key under every verb.
func (m DecryptionMaterials) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "envelope.DecryptionMaterials(redacted)")
}

// reservedPrefix begins the context keys that belong to the format.
const reservedPrefix = "aws-crypto-"

// maxKeys is the most wrapped keys that a message has room for.
const maxKeys = math.MaxUint16

// encryptionMaterials checks the options and asks the keyring; no KMS is asked before all is checked. It does what the
// specification's default CMM and its required encryption context CMM do together. Errors: ErrCommitmentPolicy,
// ErrContext, ErrTooManyKeys, those of the keyring.
func encryptionMaterials(ctx context.Context, o EncryptOptions) (_ *EncryptionMaterials, err error) {
	if err := o.Policy.checkEncrypt(o.Suite); err != nil {
		return nil, err
	}
	if o.Keyring == nil {
		return nil, errors.New("make encryption materials: no keyring")
	}
	m := &EncryptionMaterials{Suite: o.Suite, Context: maps.Clone(o.Context)}
	if m.Context == nil {
		m.Context = make(kmsprovider.Context)
	}
	for k := range m.Context {
		if strings.HasPrefix(k, reservedPrefix) {
			return nil, fmt.Errorf("%w: key %q: the prefix %s is reserved", ErrContext, k, reservedPrefix)
		}
	}
	if m.RequiredKeys, err = requiredKeys(m.Context, o.RequiredContextKeys); err != nil {
		return nil, err
	}
	if o.Suite.Signed() {
		if m.SigningKey, err = newSigningKey(o.Suite, m.Context); err != nil {
			return nil, err
		}
	}
	// With the key of the signature, as a KMS counts that too.
	if err := m.Context.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContext, err)
	}
	if err := checkCount(wraps(o.Keyring), o.MaxDataKeys); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.Wipe()
		}
	}()
	if err := o.Keyring.OnEncrypt(ctx, m); err != nil {
		return nil, err
	}
	switch n := len(m.DataKey); {
	case n != m.Suite.KeySize():
		return nil, fmt.Errorf("make data key: it has %d bytes, and %s takes %d", n, m.Suite, m.Suite.KeySize())
	case len(m.Keys) == 0:
		return nil, errors.New("wrap data key: no keyring did")
	}
	return m, checkCount(len(m.Keys), o.MaxDataKeys)
}

// requiredKeys sorts keys, each of which must be of a pair of c.
func requiredKeys(c kmsprovider.Context, keys []string) ([]string, error) {
	for _, k := range keys {
		if _, ok := c[k]; !ok {
			return nil, fmt.Errorf("%w: required key %q is of none of the pairs given", ErrContext, k)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(keys))), nil
}

// checkCount bounds the wrapped keys of a message.
func checkCount(n, most int) error {
	if most <= 0 || most > maxKeys {
		most = maxKeys
	}
	if n > most {
		return fmt.Errorf("%w: %d, at most %d", ErrTooManyKeys, n, most)
	}
	return nil
}

// decryptionMaterials checks the header, which is not authenticated yet, against the options and asks the keyring; no
// KMS is asked before all is checked. It does what the specification's default CMM and its required encryption context
// CMM do together. Errors: ErrCommitmentPolicy, ErrTooManyKeys, ErrContext, ErrMalformed, ErrNoKey.
func decryptionMaterials(ctx context.Context, h *Header, o DecryptOptions) (_ *DecryptionMaterials, err error) {
	if err := o.Policy.checkDecrypt(h.Suite); err != nil {
		return nil, err
	}
	if o.Keyring == nil {
		return nil, errors.New("make decryption materials: no keyring")
	}
	if err := checkCount(len(h.Keys), o.MaxDataKeys); err != nil {
		return nil, err
	}
	m := &DecryptionMaterials{Suite: h.Suite}
	if m.Context, m.RequiredKeys, err = reproduceContext(h.Context, o.Context, o.ContextKeys); err != nil {
		return nil, err
	}
	if m.VerifyKey, err = verifyKey(h.Suite, h.Context); err != nil {
		return nil, err
	}
	if err := o.Keyring.OnDecrypt(ctx, m, h.Keys); err != nil {
		m.Wipe()
		return nil, err
	}
	if n := len(m.DataKey); n != m.Suite.KeySize() {
		m.Wipe()
		return nil, fmt.Errorf("open data key: it has %d bytes, and %s takes %d", n, m.Suite, m.Suite.KeySize())
	}
	return m, nil
}

// reproduceContext puts the pairs that a message stores and those given beside it together, and returns the keys of
// those that it does not store, sorted. Where both have a pair they must agree. All of keys must be there.
func reproduceContext(stored, given kmsprovider.Context, keys []string) (kmsprovider.Context, []string, error) {
	whole := make(kmsprovider.Context, len(stored)+len(given))
	maps.Copy(whole, stored)
	var added []string
	for _, k := range slices.Sorted(maps.Keys(given)) {
		v, ok := stored[k]
		switch {
		case ok && v != given[k]:
			return nil, nil, fmt.Errorf("%w: the message has %q for %q, wanted is %q", ErrContext, shorten(v), shorten(k), shorten(given[k]))
		case !ok && strings.HasPrefix(k, reservedPrefix):
			return nil, nil, fmt.Errorf("%w: the message does not store %q, and the prefix %s is reserved", ErrContext, shorten(k), reservedPrefix)
		case !ok:
			whole[k] = given[k]
			added = append(added, k)
		}
	}
	for _, k := range keys {
		if _, ok := whole[k]; !ok {
			return nil, nil, fmt.Errorf("%w: the message has no pair %q", ErrContext, shorten(k))
		}
	}
	// What is not stored must be as encryption takes it; what is, the format has bounded.
	if _, err := serializeContext(whole); err != nil {
		return nil, nil, err
	}
	return whole, added, nil
}

// shorten bounds what is put into an error.
func shorten(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
