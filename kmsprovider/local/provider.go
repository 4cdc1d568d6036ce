package local

import (
	"context"
	"fmt"

	"kmsfs/kmsprovider"
)

// The methods of kmsprovider.Provider are calls of Do as the account's root.

// Name returns "local".
func (k *Keystore) Name() string { return providerName }

// GenerateDataKey is kmsprovider.Provider's.
func (k *Keystore) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	out, err := do[GenerateDataKeyOutput](ctx, k, &GenerateDataKeyInput{KeyID: keyID, EncryptionContext: ec, KeySpec: "AES_256"})
	if err != nil {
		return nil, nil, err
	}
	return out.Plaintext, out.CiphertextBlob, nil
}

// Encrypt is kmsprovider.Provider's.
func (k *Keystore) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	out, err := do[EncryptOutput](ctx, k, &EncryptInput{KeyID: keyID, Plaintext: plaintext, EncryptionContext: ec})
	if err != nil {
		return nil, err
	}
	return out.CiphertextBlob, nil
}

// Decrypt is kmsprovider.Provider's. Unlike the operation it demands a keyID.
func (k *Keystore) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if keyID == "" {
		return nil, fmt.Errorf("Decrypt: %w", missingKey("", k.account))
	}
	out, err := do[DecryptOutput](ctx, k, &DecryptInput{KeyID: keyID, CiphertextBlob: wrapped, EncryptionContext: ec})
	if err != nil {
		return nil, err
	}
	return out.Plaintext, nil
}

// ReEncrypt is kmsprovider.Provider's. Unlike the operation it demands from.
func (k *Keystore) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	if from == "" {
		return nil, fmt.Errorf("ReEncrypt: %w", missingKey("", k.account))
	}
	out, err := do[ReEncryptOutput](ctx, k, &ReEncryptInput{
		CiphertextBlob: wrapped, SourceKeyID: from, SourceEncryptionContext: fromEC, DestinationKeyID: to, DestinationEncryptionContext: toEC,
	})
	if err != nil {
		return nil, err
	}
	return out.CiphertextBlob, nil
}

// DescribeKey is kmsprovider.Provider's.
func (k *Keystore) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	out, err := do[DescribeKeyOutput](ctx, k, &DescribeKeyInput{KeyID: keyID})
	if err != nil {
		return kmsprovider.KeyInfo{}, err
	}
	return out.KeyMetadata.info(), nil
}
