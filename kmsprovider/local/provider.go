package local

import (
	"context"
	"fmt"
	"io"

	"kmsfs/kmsprovider"
)

// Name returns "local".
func (k *Keystore) Name() string { return providerName }

// GenerateDataKey is kmsprovider.Provider's.
func (k *Keystore) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	plaintext = make([]byte, kmsprovider.DataKeySize)
	if _, err = io.ReadFull(k.random, plaintext); err == nil {
		wrapped, err = k.wrap(ctx, keyID, plaintext, ec)
	}
	if err != nil {
		clear(plaintext)
		return nil, nil, fmt.Errorf("generate data key: %w", err)
	}
	return plaintext, wrapped, nil
}

// Encrypt is kmsprovider.Provider's.
func (k *Keystore) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	err := kmsprovider.CheckPlaintext(len(plaintext))
	var wrapped []byte
	if err == nil {
		wrapped, err = k.wrap(ctx, keyID, plaintext, ec)
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return wrapped, nil
}

// Decrypt is kmsprovider.Provider's.
func (k *Keystore) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	plaintext, err := k.unwrap(ctx, keyID, wrapped, ec)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plaintext, nil
}

// ReEncrypt is kmsprovider.Provider's. The plaintext is wiped in between.
func (k *Keystore) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	plaintext, err := k.unwrap(ctx, from, wrapped, fromEC)
	if err != nil {
		return nil, fmt.Errorf("re-encrypt from: %w", err)
	}
	defer clear(plaintext)
	rewrapped, err := k.wrap(ctx, to, plaintext, toEC)
	if err != nil {
		return nil, fmt.Errorf("re-encrypt to: %w", err)
	}
	return rewrapped, nil
}

// DescribeKey is kmsprovider.Provider's.
func (k *Keystore) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	state, err := k.acquire(ctx)
	if err != nil {
		return kmsprovider.KeyInfo{}, fmt.Errorf("describe key: %w", err)
	}
	defer k.mu.RUnlock()
	key, err := state.find(keyID)
	if err != nil {
		return kmsprovider.KeyInfo{}, fmt.Errorf("describe key: %w", err)
	}
	return key.record.info(key.arn), nil
}

// wrap seals plaintext under the key's current material.
func (k *Keystore) wrap(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := ec.Check(); err != nil {
		return nil, err
	}
	state, err := k.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer k.mu.RUnlock()
	key, err := state.find(keyID)
	if err != nil {
		return nil, err
	}
	if err := key.usable(); err != nil {
		return nil, err
	}
	wrapped := make([]byte, 0, blobOverhead+len(plaintext))
	wrapped = appendBlobHeader(wrapped, key.id, key.currentID)
	wrapped, err = key.current.Seal(wrapped, k.random, plaintext, blobAAD(wrapped, ec))
	if err != nil {
		return nil, fmt.Errorf("seal under key %s: %w", key.arn, err)
	}
	return wrapped, nil
}

// unwrap opens wrapped, which must name the key keyID.
func (k *Keystore) unwrap(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := ec.Check(); err != nil {
		return nil, err
	}
	state, err := k.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer k.mu.RUnlock()
	key, err := state.find(keyID)
	if err != nil {
		return nil, err
	}
	b, err := parseBlob(wrapped)
	if err != nil {
		return nil, err
	}
	switch state.byID[b.key] {
	case key:
	case nil:
		return nil, fmt.Errorf("open under key %s: wrapped by no key of this keystore: %w", key.arn, kmsprovider.ErrInvalidCiphertext)
	default:
		return nil, fmt.Errorf("open under key %s: %w", key.arn, kmsprovider.ErrIncorrectKey)
	}
	if err := key.usable(); err != nil {
		return nil, err
	}
	material := key.materials[b.material]
	if material == nil {
		return nil, fmt.Errorf("open under key %s: no such key material: %w", key.arn, kmsprovider.ErrInvalidCiphertext)
	}
	plaintext, err := material.Open(nil, b.sealed, blobAAD(b.header, ec))
	if err != nil {
		return nil, fmt.Errorf("open under key %s: %w", key.arn, kmsprovider.ErrInvalidCiphertext)
	}
	return plaintext, nil
}

// blobAAD is what a blob authenticates besides its plaintext.
func blobAAD(header []byte, ec kmsprovider.Context) []byte {
	return ec.AppendCanonical(append(make([]byte, 0, 256), header...))
}
