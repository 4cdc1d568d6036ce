package envelope

import (
	"context"
	"crypto/ecdsa"
	"errors"

	"kmsfs/kmsprovider"
)

// EncryptionMaterials is what a message is encrypted with.
type EncryptionMaterials struct {
	Suite        Suite
	Context      kmsprovider.Context // whole, aws-crypto-public-key included
	RequiredKeys []string            // of Context: authenticated, not stored
	DataKey      []byte              // Suite.KeySize() bytes; Wipe clears it
	Keys         []EncryptedDataKey
	SigningKey   *ecdsa.PrivateKey // nil unless Suite.Signed()
}

// Wipe clears the data key.
func (m *EncryptionMaterials) Wipe() { clear(m.DataKey) }

// DecryptionMaterials is what a message is decrypted with.
type DecryptionMaterials struct {
	Suite        Suite
	Context      kmsprovider.Context // whole: what the message stores, and what was given beside it
	RequiredKeys []string            // of Context: authenticated, not stored
	DataKey      []byte              // Suite.KeySize() bytes; Wipe clears it
	VerifyKey    *ecdsa.PublicKey    // nil unless Suite.Signed()
}

// Wipe clears the data key.
func (m *DecryptionMaterials) Wipe() { clear(m.DataKey) }

// encryptionMaterials checks the options and asks the keyring.
func encryptionMaterials(ctx context.Context, o EncryptOptions) (*EncryptionMaterials, error) {
	return nil, errors.New("make encryption materials: not written yet")
}

// decryptionMaterials checks the header, which is not authenticated yet, against the options and asks the keyring.
func decryptionMaterials(ctx context.Context, h *Header, o DecryptOptions) (*DecryptionMaterials, error) {
	return nil, errors.New("make decryption materials: not written yet")
}
