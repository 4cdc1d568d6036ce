package age

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"kmsfs/kmsprovider"
)

const (
	providerName = "age"
	contextLabel = "kmsfs v1 age context"
)

// Provider wraps for age recipients. Safe for concurrent use.
type Provider struct{ identities identities }

var _ kmsprovider.Provider = (*Provider)(nil)

// New returns the provider. Without a source it can wrap, and open nothing.
func New(source Source) *Provider { return &Provider{identities{source: source}} }

// Name returns "age".
func (p *Provider) Name() string { return providerName }

// GenerateDataKey is kmsprovider.Provider's.
func (p *Provider) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	plaintext = make([]byte, kmsprovider.DataKeySize)
	rand.Read(plaintext)
	if wrapped, err = wrap(ctx, keyID, plaintext, ec); err != nil {
		clear(plaintext)
		return nil, nil, fmt.Errorf("generate data key: %w", err)
	}
	return plaintext, wrapped, nil
}

// Encrypt is kmsprovider.Provider's.
func (p *Provider) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	err := kmsprovider.CheckPlaintext(len(plaintext))
	var wrapped []byte
	if err == nil {
		wrapped, err = wrap(ctx, keyID, plaintext, ec)
	}
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	return wrapped, nil
}

// Decrypt is kmsprovider.Provider's. Besides, it is ErrNotUsable without the
// identity of keyID.
func (p *Provider) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	plaintext, err := p.unwrap(ctx, keyID, wrapped, ec)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	return plaintext, nil
}

// ReEncrypt is kmsprovider.Provider's. It needs the identity of from.
func (p *Provider) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	if _, err := parseRecipient(to); err != nil {
		return nil, fmt.Errorf("re-encrypt to: %w", err)
	}
	plaintext, err := p.unwrap(ctx, from, wrapped, fromEC)
	if err != nil {
		return nil, fmt.Errorf("re-encrypt from: %w", err)
	}
	defer clear(plaintext)
	rewrapped, err := wrap(ctx, to, plaintext, toEC)
	if err != nil {
		return nil, fmt.Errorf("re-encrypt to: %w", err)
	}
	return rewrapped, nil
}

// DescribeKey is kmsprovider.Provider's. A recipient is a key that is always
// enabled, whether or not its identity is here; when it was made is not known.
func (p *Provider) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	err := ctx.Err()
	if err == nil {
		_, err = parseRecipient(keyID)
	}
	if err != nil {
		return kmsprovider.KeyInfo{}, fmt.Errorf("describe key: %w", err)
	}
	return kmsprovider.KeyInfo{
		KeyID: keyID, Provider: providerName, State: kmsprovider.StateEnabled,
		Manager: kmsprovider.ManagerCustomer, Origin: "EXTERNAL",
	}, nil
}

// wrap seals plaintext and its context for a recipient.
func wrap(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := errors.Join(ctx.Err(), ec.Check()); err != nil {
		return nil, err
	}
	recipient, err := parseRecipient(keyID)
	if err != nil {
		return nil, err
	}
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, recipient)
	if err == nil {
		_, err = w.Write(contextHash(ec))
	}
	if err == nil {
		_, err = w.Write(plaintext)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("seal for %.100s: %w", keyID, err)
	}
	return wrapped.Bytes(), nil
}

// unwrap opens what wrap has sealed for the recipient keyID.
func (p *Provider) unwrap(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if err := errors.Join(ctx.Err(), ec.Check()); err != nil {
		return nil, err
	}
	if _, err := parseRecipient(keyID); err != nil {
		return nil, err
	}
	if len(wrapped) > kmsprovider.MaxCiphertext {
		return nil, fmt.Errorf("wrapped key of %d bytes, at most %d: %w", len(wrapped), kmsprovider.MaxCiphertext, kmsprovider.ErrInvalidCiphertext)
	}
	its, others, err := p.identities.find(keyID)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(bytes.NewReader(wrapped), its)
	if err != nil {
		// Nothing in an age file says for whom it is; only an identity tells.
		if len(others) > 0 {
			if _, elses := age.Decrypt(bytes.NewReader(wrapped), others...); elses == nil {
				return nil, fmt.Errorf("open for %.100s: %w", keyID, kmsprovider.ErrIncorrectKey)
			}
		}
		return nil, fmt.Errorf("open for %.100s: %w", keyID, kmsprovider.ErrInvalidCiphertext)
	}
	// Room for all and one more byte: a buffer that grew would leave copies behind.
	b := make([]byte, sha256.Size+kmsprovider.MaxPlaintext+1)
	n, err := io.ReadFull(r, b)
	hash, plaintext := b[:sha256.Size], b[sha256.Size:max(n, sha256.Size)]
	if err != io.ErrUnexpectedEOF || len(plaintext) == 0 || subtle.ConstantTimeCompare(hash, contextHash(ec)) != 1 {
		clear(b)
		return nil, fmt.Errorf("open for %.100s: %w", keyID, kmsprovider.ErrInvalidCiphertext)
	}
	return plaintext, nil
}

// contextHash stands for a context within the sealed bytes: a context may be
// larger than a wrapped key.
func contextHash(ec kmsprovider.Context) []byte {
	hash := sha256.Sum256(ec.AppendCanonical([]byte(contextLabel)))
	return hash[:]
}
