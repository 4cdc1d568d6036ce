package aws

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"kmsfs/kmsprovider"
)

const providerName = "aws"

// DefaultTimeout bounds a call where Options.Timeout does not.
const DefaultTimeout = 30 * time.Second

// Options says how to talk to AWS KMS. The zero value is what is wanted.
type Options struct {
	// Timeout bounds each call, attempts and credentials included; 0 means
	// DefaultTimeout. The caller's context may end it earlier.
	Timeout time.Duration
}

// Provider is AWS KMS. Safe for concurrent use.
type Provider struct {
	timeout time.Duration
	clients clients
}

var _ kmsprovider.Provider = (*Provider)(nil)

// New returns the provider. Nothing is read or connected before the first call.
func New(o Options) *Provider {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	return &Provider{timeout: o.Timeout}
}

// Name returns "aws".
func (p *Provider) Name() string { return providerName }

// Close closes idle connections.
func (p *Provider) Close() error {
	p.clients.close()
	return nil
}

// invoke makes one call for a key, in the key's region.
func invoke[Out any](ctx context.Context, p *Provider, operation string, k key, call func(context.Context, *kms.Client, func(*kms.Options)) (Out, error)) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var none Out
	client, err := p.clients.in(ctx, k.region)
	if err != nil {
		return none, translate(ctx, operation, k.arn, err)
	}
	var tries attempts
	out, err := call(ctx, client, tries.use)
	if err != nil {
		return none, translate(ctx, operation, k.arn, tries.cause(err))
	}
	return out, nil
}

// GenerateDataKey is kmsprovider.Provider's.
func (p *Provider) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) (plaintext, wrapped []byte, err error) {
	const operation = "GenerateDataKey"
	k, err := parseKey(keyID)
	if err == nil {
		err = ec.Check()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", operation, err)
	}
	out, err := invoke(ctx, p, operation, k, func(ctx context.Context, c *kms.Client, o func(*kms.Options)) (*kms.GenerateDataKeyOutput, error) {
		return c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &keyID, EncryptionContext: ec, KeySpec: types.DataKeySpecAes256}, o)
	})
	if err != nil {
		return nil, nil, err
	}
	err = checkKey(operation, k, out.KeyId)
	if err == nil && len(out.Plaintext) != kmsprovider.DataKeySize {
		err = badAnswer(operation, k, "a data key of %d bytes, want %d", len(out.Plaintext), kmsprovider.DataKeySize)
	}
	if err == nil {
		err = checkWrapped(operation, k, out.CiphertextBlob)
	}
	if err != nil {
		clear(out.Plaintext)
		return nil, nil, err
	}
	return out.Plaintext, out.CiphertextBlob, nil
}

// Decrypt is kmsprovider.Provider's.
func (p *Provider) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	const operation = "Decrypt"
	k, err := parseKey(keyID)
	if err == nil {
		err = checkInput(wrapped, ec)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	out, err := invoke(ctx, p, operation, k, func(ctx context.Context, c *kms.Client, o func(*kms.Options)) (*kms.DecryptOutput, error) {
		return c.Decrypt(ctx, &kms.DecryptInput{KeyId: &keyID, CiphertextBlob: wrapped, EncryptionContext: ec}, o)
	})
	if err != nil {
		return nil, err
	}
	err = checkKey(operation, k, out.KeyId)
	if n := len(out.Plaintext); err == nil && (n < 1 || n > kmsprovider.MaxPlaintext) {
		err = badAnswer(operation, k, "a plaintext of %d bytes, want 1 to %d", n, kmsprovider.MaxPlaintext)
	}
	if err != nil {
		clear(out.Plaintext)
		return nil, err
	}
	return out.Plaintext, nil
}

// Encrypt is kmsprovider.Provider's.
func (p *Provider) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	const operation = "Encrypt"
	k, err := parseKey(keyID)
	if err == nil {
		err = kmsprovider.CheckPlaintext(len(plaintext))
	}
	if err == nil {
		err = ec.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	out, err := invoke(ctx, p, operation, k, func(ctx context.Context, c *kms.Client, o func(*kms.Options)) (*kms.EncryptOutput, error) {
		return c.Encrypt(ctx, &kms.EncryptInput{KeyId: &keyID, Plaintext: plaintext, EncryptionContext: ec}, o)
	})
	if err == nil {
		err = checkKey(operation, k, out.KeyId)
	}
	if err == nil {
		err = checkWrapped(operation, k, out.CiphertextBlob)
	}
	if err != nil {
		return nil, err
	}
	return out.CiphertextBlob, nil
}

// ReEncrypt is kmsprovider.Provider's. The KMS does it where both keys are in
// one region; otherwise it is a Decrypt and an Encrypt, with the plaintext
// wiped in between.
func (p *Provider) ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC kmsprovider.Context, to string, toEC kmsprovider.Context) ([]byte, error) {
	const operation = "ReEncrypt"
	source, err := parseKey(from)
	if err != nil {
		return nil, fmt.Errorf("%s from: %w", operation, err)
	}
	destination, err := parseKey(to)
	if err == nil {
		err = toEC.Check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s to: %w", operation, err)
	}
	if err := checkInput(wrapped, fromEC); err != nil {
		return nil, fmt.Errorf("%s from: %w", operation, err)
	}
	if source.region != destination.region {
		plaintext, err := p.Decrypt(ctx, from, wrapped, fromEC)
		if err != nil {
			return nil, err
		}
		defer clear(plaintext)
		return p.Encrypt(ctx, to, plaintext, toEC)
	}
	out, err := invoke(ctx, p, operation, destination, func(ctx context.Context, c *kms.Client, o func(*kms.Options)) (*kms.ReEncryptOutput, error) {
		return c.ReEncrypt(ctx, &kms.ReEncryptInput{
			CiphertextBlob: wrapped, SourceKeyId: &from, SourceEncryptionContext: fromEC,
			DestinationKeyId: &to, DestinationEncryptionContext: toEC,
		}, o)
	})
	if err == nil {
		err = checkKey(operation, source, out.SourceKeyId)
	}
	if err == nil {
		err = checkKey(operation, destination, out.KeyId)
	}
	if err == nil {
		err = checkWrapped(operation, destination, out.CiphertextBlob)
	}
	if err != nil {
		return nil, err
	}
	return out.CiphertextBlob, nil
}

// DescribeKey is kmsprovider.Provider's.
func (p *Provider) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	const operation = "DescribeKey"
	k, err := parseKey(keyID)
	if err != nil {
		return kmsprovider.KeyInfo{}, fmt.Errorf("%s: %w", operation, err)
	}
	out, err := invoke(ctx, p, operation, k, func(ctx context.Context, c *kms.Client, o func(*kms.Options)) (*kms.DescribeKeyOutput, error) {
		return c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &keyID}, o)
	})
	if err != nil {
		return kmsprovider.KeyInfo{}, err
	}
	if out.KeyMetadata == nil {
		return kmsprovider.KeyInfo{}, badAnswer(operation, k, "no key metadata")
	}
	m := out.KeyMetadata
	if err := checkKey(operation, k, m.Arn); err != nil {
		return kmsprovider.KeyInfo{}, err
	}
	info := kmsprovider.KeyInfo{
		KeyID: *m.Arn, Provider: providerName, State: state(m.KeyState),
		Manager: kmsprovider.ManagerCustomer, Origin: string(m.Origin),
	}
	if m.Description != nil {
		info.Description = *m.Description
	}
	if m.CreationDate != nil {
		info.Created = *m.CreationDate
	}
	if m.KeyManager == types.KeyManagerTypeAws {
		info.Manager = kmsprovider.ManagerAWS
	}
	return info, nil
}

// state puts a key's state in kmsprovider's words, which are fewer.
func state(s types.KeyState) string {
	switch s {
	case types.KeyStateEnabled, types.KeyStateUpdating: // its primary Region is moving; usable meanwhile
		return kmsprovider.StateEnabled
	case types.KeyStateDisabled:
		return kmsprovider.StateDisabled
	case types.KeyStatePendingDeletion, types.KeyStatePendingReplicaDeletion:
		return kmsprovider.StatePendingDeletion
	case types.KeyStatePendingImport:
		return kmsprovider.StatePendingImport
	}
	return kmsprovider.StateUnavailable
}

// checkInput refuses what no KMS would open.
func checkInput(wrapped []byte, ec kmsprovider.Context) error {
	if n := len(wrapped); n < 1 || n > kmsprovider.MaxCiphertext {
		return fmt.Errorf("wrapped key of %d bytes, want 1 to %d: %w", n, kmsprovider.MaxCiphertext, kmsprovider.ErrInvalidCiphertext)
	}
	return ec.Check()
}

// checkKey refuses the answer of another key than the one asked.
func checkKey(operation string, k key, answer *string) error {
	if answer == nil {
		return badAnswer(operation, k, "no KeyId")
	}
	if !k.is(*answer) {
		return &Error{
			Operation: operation, KeyID: k.arn, cause: kmsprovider.ErrIncorrectKey,
			Message: fmt.Sprintf("the answer is of key %q, asked was %s", bounded(*answer), k.arn),
		}
	}
	return nil
}

func checkWrapped(operation string, k key, wrapped []byte) error {
	if n := len(wrapped); n < 1 || n > kmsprovider.MaxCiphertext {
		return badAnswer(operation, k, "a wrapped key of %d bytes, want 1 to %d", n, kmsprovider.MaxCiphertext)
	}
	return nil
}

// badAnswer is the error for an answer that is none of the protocol.
func badAnswer(operation string, k key, format string, args ...any) error {
	return &Error{
		Operation: operation, KeyID: k.arn, cause: kmsprovider.ErrUnavailable,
		Message: "the answer makes no sense: " + fmt.Sprintf(format, args...),
	}
}
