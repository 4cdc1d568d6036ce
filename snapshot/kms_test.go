package snapshot

import (
	"context"
	"crypto/rand"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// fakeKMS is a KMS in memory, of one key that goes by any name.
type fakeKMS struct {
	kmsprovider.Provider // what is not here panics
	key                  *crypto.XAES
}

const fakeKey = "arn:fake:key/1"

func newFakeKMS() *fakeKMS {
	key, err := crypto.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &fakeKMS{key: crypto.NewXAES(key)}
}

func (k *fakeKMS) Name() string { return "local" }

func (k *fakeKMS) GenerateDataKey(_ context.Context, _ string, ec kmsprovider.Context) ([]byte, []byte, error) {
	plain := make([]byte, 32)
	_, _ = rand.Read(plain)
	wrapped, err := k.key.Seal(nil, rand.Reader, plain, ec.Canonical())
	return plain, wrapped, err
}

func (k *fakeKMS) Decrypt(_ context.Context, _ string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	plain, err := k.key.Open(nil, wrapped, ec.Canonical())
	if err != nil {
		return nil, kmsprovider.ErrInvalidCiphertext
	}
	return plain, nil
}

func (k *fakeKMS) Encrypt(_ context.Context, _ string, plain []byte, ec kmsprovider.Context) ([]byte, error) {
	return k.key.Seal(nil, rand.Reader, plain, ec.Canonical())
}

func (k *fakeKMS) ReEncrypt(_ context.Context, wrapped []byte, _ string, from kmsprovider.Context, _ string, to kmsprovider.Context) ([]byte, error) {
	plain, err := k.key.Open(nil, wrapped, from.Canonical())
	if err != nil {
		return nil, kmsprovider.ErrInvalidCiphertext
	}
	return k.key.Seal(nil, rand.Reader, plain, to.Canonical())
}

func (k *fakeKMS) DescribeKey(_ context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	return kmsprovider.KeyInfo{KeyID: keyID, Provider: "local", State: kmsprovider.StateEnabled}, nil
}
