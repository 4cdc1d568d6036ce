package local

import (
	"fmt"
	"io"

	"kmsfs/kmsprovider"
)

// keyOf returns the key that wrapped names, which must be the key keyID if
// that is not empty.
func (c *call) keyOf(wrapped []byte, keyID string) (*openKey, error) {
	var want *openKey
	if keyID != "" {
		var err error
		if want, err = c.state.find(keyID, false, c.now); err != nil {
			return nil, err
		}
	}
	b, ok := parseBlob(wrapped)
	key := c.state.byID[b.key]
	if !ok || key == nil || key.record.gone(c.now) {
		return nil, refuse(codeInvalidCiphertext, "")
	}
	if want != nil && want != key {
		return nil, refuse(codeIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	return key, nil
}

// wrap seals plaintext under the key's current material.
func (k *openKey) wrap(random io.Reader, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	wrapped := make([]byte, 0, blobOverhead+len(plaintext))
	wrapped = appendBlobHeader(wrapped, k.id, k.currentID)
	wrapped, err := k.current.Seal(wrapped, random, plaintext, blobAAD(wrapped, ec))
	if err != nil {
		return nil, fmt.Errorf("seal under key %s: %w", k.arn, err)
	}
	return wrapped, nil
}

// unwrap opens wrapped, which names this key, and tells which material did.
func (k *openKey) unwrap(wrapped []byte, ec kmsprovider.Context) ([]byte, materialID, error) {
	b, ok := parseBlob(wrapped)
	material := k.materials[b.material]
	if !ok || material == nil {
		return nil, materialID{}, refuse(codeInvalidCiphertext, "")
	}
	plaintext, err := material.Open(nil, b.sealed, blobAAD(b.header, ec))
	if err != nil {
		return nil, materialID{}, refuse(codeInvalidCiphertext, "")
	}
	return plaintext, b.material, nil
}

// blobAAD is what a blob authenticates besides its plaintext.
func blobAAD(header []byte, ec kmsprovider.Context) []byte {
	return ec.AppendCanonical(append(make([]byte, 0, 256), header...))
}
