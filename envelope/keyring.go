package envelope

import "context"

// EncryptedDataKey is the data key of a message, wrapped under one wrapping key.
type EncryptedDataKey struct {
	Provider   string // "aws-kms", or the namespace of a raw key
	Info       []byte // which key of the provider: an ARN, for aws-kms
	Ciphertext []byte
}

// Keyring wraps and opens data keys. It is safe for concurrent use.
type Keyring interface {
	// OnEncrypt makes the data key where m has none and adds it wrapped to m.Keys; else it only wraps it.
	OnEncrypt(ctx context.Context, m *EncryptionMaterials) error
	// OnDecrypt sets m.DataKey from the first of keys that it can open. ErrNoKey if there is none.
	OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error
}
