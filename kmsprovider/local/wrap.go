package local

import (
	"fmt"
	"io"

	"kmsfs/kmsprovider"
)

// wrap seals plaintext under the key's current material.
func (k *openKey) wrap(random io.Reader, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := checkContext(ec); err != nil {
		return nil, err
	}
	wrapped := make([]byte, 0, blobOverhead+len(plaintext))
	wrapped = appendBlobHeader(wrapped, k.id, k.currentID)
	wrapped, err := k.current.Seal(wrapped, random, plaintext, blobAAD(wrapped, ec))
	if err != nil {
		return nil, fmt.Errorf("seal under key %s: %w", k.arn, err)
	}
	return wrapped, nil
}

// unwrap opens wrapped, which must name this key of the state.
func (k *openKey) unwrap(state *snapshot, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := checkContext(ec); err != nil {
		return nil, err
	}
	b, ok := parseBlob(wrapped)
	if !ok {
		return nil, refuse(codeInvalidCiphertext, "")
	}
	switch state.byID[b.key] {
	case k:
	case nil:
		return nil, refuse(codeInvalidCiphertext, "")
	default:
		return nil, refuse(codeIncorrectKey, "The key ID in the request does not identify a CMK that can perform this operation.")
	}
	material := k.materials[b.material]
	if material == nil {
		return nil, refuse(codeInvalidCiphertext, "")
	}
	plaintext, err := material.Open(nil, b.sealed, blobAAD(b.header, ec))
	if err != nil {
		return nil, refuse(codeInvalidCiphertext, "")
	}
	return plaintext, nil
}

func checkContext(ec kmsprovider.Context) error {
	if err := ec.Check(); err != nil {
		return refuse(codeValidation, "%v", err)
	}
	return nil
}

// blobAAD is what a blob authenticates besides its plaintext.
func blobAAD(header []byte, ec kmsprovider.Context) []byte {
	return ec.AppendCanonical(append(make([]byte, 0, 256), header...))
}
