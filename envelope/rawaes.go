package envelope

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"

	"kmsfs/kmsprovider"
)

// rawAES wraps with AES-GCM under a key in memory. The encryption context is the additional data. Which key wrapped is
// told in the message by, in this order:
//
//	the name of the key
//	the length of the tag in bits, u32: 128
//	the length of the IV in bytes, u32: 12
//	the IV
//
// IVs are drawn at random, so that one key should wrap no more than 2^32 data keys (NIST SP 800-38D, 8.3).
// Specification: raw-aes-keyring.md.
type rawAES struct {
	rawName
	aead func() cipher.AEAD // a function because no printer sees through one; puts the IV in front of what it seals
}

// newRawAES keeps no reference to key, which has 16, 24 or 32 bytes.
func newRawAES(name rawName, key []byte) (*rawAES, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &rawAES{name, func() cipher.AEAD { return aead }}, nil
}

// info is the part of EncryptedDataKey.Info before the IV.
func (k *rawAES) info() []byte {
	b := append([]byte(nil), k.name...)
	b = binary.BigEndian.AppendUint32(b, tagSize*8)
	return binary.BigEndian.AppendUint32(b, nonceSize)
}

func (k *rawAES) wraps() int { return 1 }

func (k *rawAES) OnEncrypt(_ context.Context, m *EncryptionMaterials) error {
	aad, err := serializeContext(m.Context)
	if err != nil {
		return fmt.Errorf("wrap data key under %s: %w", k, err)
	}
	if err := m.drawDataKey(); err != nil {
		return err
	}
	sealed := k.aead().Seal(nil, nil, m.DataKey, aad)
	m.Keys = append(m.Keys, EncryptedDataKey{Provider: k.namespace, Info: append(k.info(), sealed[:nonceSize]...), Ciphertext: sealed[nonceSize:]})
	return nil
}

func (k *rawAES) OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	aad, err := serializeContext(m.Context)
	if err != nil {
		return fmt.Errorf("open data key with %s: %w", k, err)
	}
	info := k.info()
	return m.openFirst(ctx, keys, func(w EncryptedDataKey) ([]byte, error) {
		// The length tells this name from a longer one that begins alike.
		if w.Provider != k.namespace || len(w.Info) != len(info)+nonceSize || !bytes.HasPrefix(w.Info, []byte(k.name)) {
			return nil, nil
		}
		if !bytes.HasPrefix(w.Info, info) {
			return nil, fmt.Errorf("open data key with %s: its IV has not %d bytes, or its tag not %d: %w", k, nonceSize, tagSize, kmsprovider.ErrInvalidCiphertext)
		}
		dataKey, err := k.aead().Open(nil, nil, append(bytes.Clone(w.Info[len(info):]), w.Ciphertext...), aad)
		if err != nil { // says nothing more
			return nil, fmt.Errorf("open data key with %s: %w, or another key of that name", k, kmsprovider.ErrInvalidCiphertext)
		}
		return dataKey, nil
	})
}

// Format redacts under every verb.
func (k *rawAES) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.rawName.String()) }

// drawDataKey makes the data key where there is none.
func (m *EncryptionMaterials) drawDataKey() error {
	if m.DataKey != nil {
		return nil
	}
	dataKey := make([]byte, m.Suite.KeySize())
	if _, err := rand.Read(dataKey); err != nil {
		return fmt.Errorf("make data key: %w", err)
	}
	m.DataKey = dataKey
	return nil
}
