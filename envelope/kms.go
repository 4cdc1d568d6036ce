package envelope

import (
	"context"
	"fmt"
	"slices"

	"kmsfs/kmsprovider"
)

// kmsProvider stands in messages for the keys of AWS KMS, and of what speaks its protocol.
const kmsProvider = "aws-kms"

// OpenProvider gives the provider that has a key. It is called for every use of one and so remembers what it opened.
type OpenProvider = func(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error)

// NewKMSKeyring wraps with all of keys, of which the first makes the data key, and opens with any of them. A message
// names the keys by their ARNs, so for an alias, or a local key by its ID, the KMS is asked once what key it is
// (DescribeKey); that holds as long as the keyring does. A multi-Region key opens what its replicas in other regions
// wrapped. Specification: aws-kms-keyring.md and aws-kms-mrk-keyring.md.
//
// Errors: kmsprovider.ErrInvalidInput for no keys, and for those of providers other than aws and local: no other program
// would open the message.
func NewKMSKeyring(open OpenProvider, keys []kmsprovider.KeyURI) (Keyring, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("new KMS keyring: no keys: %w", kmsprovider.ErrInvalidInput)
	}
	var rings []Keyring
	for _, uri := range keys {
		if uri.Provider != "aws" && uri.Provider != "local" {
			return nil, fmt.Errorf("new KMS keyring: %s: messages are wrapped under AWS KMS keys, local: keys and raw keys alone, "+
				"as no other program would open them: %w", uri, kmsprovider.ErrInvalidInput)
		}
		k := &kmsKeyring{open: open, uri: uri, turn: make(chan struct{}, 1)}
		if arn, err := parseKeyARN(uri.KeyID); err == nil {
			k.arn = arn
		} else if _, err := kmsprovider.ParseKeyURI(uri.String()); err != nil {
			return nil, fmt.Errorf("new KMS keyring: %w", err)
		}
		rings = append(rings, k)
	}
	return NewMultiKeyring(rings[0], rings[1:]...), nil
}

// kmsKeyring is one key.
type kmsKeyring struct {
	open OpenProvider
	uri  kmsprovider.KeyURI
	turn chan struct{} // takes one token, whose owner may use arn
	arn  keyARN        // zero until it is known
}

func (k *kmsKeyring) wraps() int { return 1 }

// key is the key's ARN, which the KMS is asked for once.
func (k *kmsKeyring) key(ctx context.Context) (keyARN, error) {
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return keyARN{}, ctx.Err()
	}
	defer func() { <-k.turn }()
	if k.arn != (keyARN{}) {
		return k.arn, nil
	}
	p, err := k.open(ctx, k.uri)
	if err != nil {
		return keyARN{}, err
	}
	info, err := p.DescribeKey(ctx, k.uri.KeyID)
	if err != nil {
		return keyARN{}, err
	}
	arn, err := parseKeyARN(info.KeyID)
	if err != nil { // ErrInvalidInput would blame the user
		return keyARN{}, fmt.Errorf("DescribeKey: %v: %w", err, kmsprovider.ErrUnavailable)
	}
	k.arn = arn
	return arn, nil
}

func (k *kmsKeyring) OnEncrypt(ctx context.Context, m *EncryptionMaterials) error {
	verb := "wrap data key under"
	if m.DataKey == nil {
		verb = "make data key under"
	}
	wrapped, arn, err := k.wrap(ctx, m)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, k.uri, err)
	}
	m.Keys = append(m.Keys, EncryptedDataKey{Provider: kmsProvider, Info: []byte(arn.String()), Ciphertext: wrapped})
	return nil
}

// wrap returns m.DataKey under the key, and sets it first where there is none.
func (k *kmsKeyring) wrap(ctx context.Context, m *EncryptionMaterials) ([]byte, keyARN, error) {
	if size := m.Suite.KeySize(); m.DataKey == nil && size != kmsprovider.DataKeySize {
		return nil, keyARN{}, fmt.Errorf("a data key of %s has %d bytes, and those of a KMS have %d: %w",
			m.Suite, size, kmsprovider.DataKeySize, kmsprovider.ErrInvalidInput)
	}
	arn, err := k.key(ctx)
	if err != nil {
		return nil, keyARN{}, err
	}
	p, err := k.open(ctx, k.uri)
	if err != nil {
		return nil, keyARN{}, err
	}
	if m.DataKey != nil {
		wrapped, err := p.Encrypt(ctx, arn.String(), m.DataKey, m.Context)
		return wrapped, arn, err
	}
	dataKey, wrapped, err := p.GenerateDataKey(ctx, arn.String(), m.Context)
	if err != nil {
		return nil, keyARN{}, err
	}
	m.DataKey = dataKey
	return wrapped, arn, nil
}

func (k *kmsKeyring) OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	// An alias is not looked up for a message that no KMS has a part in.
	if !slices.ContainsFunc(keys, func(w EncryptedDataKey) bool { return w.Provider == kmsProvider }) {
		return &noKeyError{}
	}
	arn, err := k.key(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("open data key: %w", ctx.Err())
	case err != nil:
		return &noKeyError{[]error{fmt.Errorf("open data key with %s: %w", k.uri, err)}}
	}
	return m.openFirst(ctx, keys, func(w EncryptedDataKey) ([]byte, error) {
		if w.Provider != kmsProvider {
			return nil, nil
		}
		// What names no key of a KMS is not this one.
		if wrapping, err := parseKeyARN(string(w.Info)); err != nil || !arn.opens(wrapping) {
			return nil, nil
		}
		return decryptWith(ctx, k.open, k.uri, arn, m, w)
	})
}

// decryptWith has the KMS open w with one key and no other: the provider sends the key's ARN and refuses the answer of
// another one.
func decryptWith(ctx context.Context, open OpenProvider, uri kmsprovider.KeyURI, arn keyARN, m *DecryptionMaterials, w EncryptedDataKey) ([]byte, error) {
	p, err := open(ctx, uri)
	if err == nil {
		var dataKey []byte
		if dataKey, err = p.Decrypt(ctx, arn.String(), w.Ciphertext, m.Context); err == nil {
			return dataKey, nil
		}
	}
	return nil, fmt.Errorf("open data key with %s: %w", uri, err)
}
