package crypto

import (
	"fmt"
	"io"
)

// WrappedDataKeySize is what WrapDataKey gives, in bytes.
const WrappedDataKeySize = NonceSize + KeySize + TagSize

// WrapDataKey wraps a data key in key mode `volume`: nonce ‖ ciphertext ‖ tag by XAES under the volume key's key for
// LabelWrap, AAD = volume ID ‖ file ID. 72 bytes.
func WrapDataKey(vk *Key, random io.Reader, volume, file ID, dek *Key) ([]byte, error) {
	wrapped, err := wrapCipher(vk).Seal(nil, random, dek.material(), wrapAAD(volume, file))
	if err != nil {
		return nil, fmt.Errorf("wrap data key: %w", err)
	}
	return wrapped, nil
}

// UnwrapDataKey is the inverse of WrapDataKey. ErrAuthentication if wrapped was not made for this file of this volume,
// ErrMalformed if it has another length.
func UnwrapDataKey(vk *Key, volume, file ID, wrapped []byte) (*Key, error) {
	if len(wrapped) != WrappedDataKeySize {
		return nil, fmt.Errorf("unwrap data key: %d bytes, want %d: %w", len(wrapped), WrappedDataKeySize, ErrMalformed)
	}
	plain, err := wrapCipher(vk).Open(nil, wrapped, wrapAAD(volume, file))
	if err != nil {
		return nil, fmt.Errorf("unwrap data key: %w", err)
	}
	defer clear(plain)
	return NewKey(plain)
}

func wrapCipher(vk *Key) *XAES {
	k := vk.Derive(LabelWrap)
	defer k.Wipe()
	return NewXAES(k)
}

func wrapAAD(volume, file ID) []byte { return append(volume[:], file[:]...) }
