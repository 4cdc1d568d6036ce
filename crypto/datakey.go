package crypto

import (
	"fmt"
	"io"
)

// WrappedDataKeySize is what DataKeyCipher.Wrap gives, in bytes.
const WrappedDataKeySize = NonceSize + KeySize + TagSize

// DataKeyCipher makes a file's secret of its data key, and wraps data keys in key mode `volume`. Safe for concurrent use.
type DataKeyCipher struct {
	xaes   *XAES
	salt   *Key
	volume ID
}

// NewDataKeyCipher derives its two keys from the volume key, and keeps nothing else of it.
func NewDataKeyCipher(vk *Key, volume ID) *DataKeyCipher {
	k := vk.Derive(LabelWrap)
	defer k.Wipe()
	return &DataKeyCipher{xaes: NewXAES(k), salt: vk.Derive(LabelFileSalt), volume: volume}
}

// Wipe overwrites the keys; the cipher must not be used beside or after it.
func (c *DataKeyCipher) Wipe() {
	c.xaes.Wipe()
	c.salt.Wipe()
}

// FileSecret joins volume key and data key: HKDF-Extract(salt = vk.Derive(LabelFileSalt), IKM = dek). Whoever has only
// one of the two can neither read nor forge the file.
func (c *DataKeyCipher) FileSecret(dek *Key) *Key { return hkdfExtract(c.salt, dek) }

// Wrap wraps a data key in key mode `volume`: nonce ‖ ciphertext ‖ tag by XAES under the volume key's key for
// LabelWrap, AAD = volume ID ‖ file ID. 72 bytes.
func (c *DataKeyCipher) Wrap(random io.Reader, file ID, dek *Key) ([]byte, error) {
	wrapped, err := c.xaes.Seal(nil, random, dek.material(), c.aad(file))
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return wrapped, nil
}

// Unwrap is the inverse of Wrap. ErrAuthentication if wrapped was not made for this file of this volume, ErrMalformed
// if it has another length.
func (c *DataKeyCipher) Unwrap(file ID, wrapped []byte) (*Key, error) {
	if len(wrapped) != WrappedDataKeySize {
		return nil, fmt.Errorf("unwrap data key: %d bytes, want %d: %w", len(wrapped), WrappedDataKeySize, ErrMalformed)
	}
	plain, err := c.xaes.Open(nil, wrapped, c.aad(file))
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", err)
	}
	defer clear(plain)
	return NewKey(plain)
}

func (c *DataKeyCipher) aad(file ID) []byte { return append(c.volume[:], file[:]...) }
