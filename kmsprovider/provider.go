package kmsprovider

import (
	"context"
	"fmt"
	"time"
)

// Sizes in bytes, those of AWS KMS.
const (
	DataKeySize   = 32   // plaintext of GenerateDataKey
	MaxPlaintext  = 4096 // plaintext of Encrypt
	MaxCiphertext = 6144 // any wrapped key
)

// States of a key, as AWS KMS names them. Only an enabled key can be used.
const (
	StateEnabled         = "Enabled"
	StateDisabled        = "Disabled"
	StatePendingDeletion = "PendingDeletion"
	StatePendingImport   = "PendingImport"
	StateUnavailable     = "Unavailable"
)

// Values of KeyInfo.Manager.
const (
	ManagerCustomer = "customer" // created by a user
	ManagerService  = "service"  // made, and rotated, by kmsfs itself
	ManagerAWS      = "aws"      // an AWS managed key
)

// KeyInfo is what a KMS tells about a key. Nothing in it is secret.
type KeyInfo struct {
	KeyID       string // the key's ARN, never an alias
	Provider    string // Provider.Name of the one that answered
	State       string // one of the State constants
	Description string
	Created     time.Time
	Manager     string // one of the Manager constants
	Origin      string // where the key material is from: "AWS_KMS", "EXTERNAL", …
}

// Provider is a KMS. All methods are safe for concurrent use and stop when ctx
// ends, with an error that matches ctx.Err. A keyID is any form of a key's
// name that the KMS accepts, aliases included; a nil Context is an empty one.
//
// Besides the errors named below every method may return ErrAccessDenied,
// ErrKeyNotFound, ErrThrottled, ErrUnavailable, and ErrInvalidInput for a
// malformed keyID or Context.
type Provider interface {
	// Name is the provider's name in a KeyURI and on disk: "local", "aws".
	Name() string

	// GenerateDataKey makes a fresh data key of DataKeySize bytes and returns
	// it with the same key wrapped under keyID and ec. The caller wipes
	// plaintext. Errors: ErrKeyDisabled.
	GenerateDataKey(ctx context.Context, keyID string, ec Context) (plaintext, wrapped []byte, err error)

	// Decrypt opens what GenerateDataKey, Encrypt or ReEncrypt wrapped under
	// keyID and ec. The caller wipes plaintext. Errors: ErrIncorrectKey when
	// another key wrapped it, ErrInvalidCiphertext for another context or
	// changed bytes, ErrKeyDisabled.
	Decrypt(ctx context.Context, keyID string, wrapped []byte, ec Context) (plaintext []byte, err error)

	// Encrypt wraps 1 to MaxPlaintext bytes under keyID and ec; other sizes are
	// ErrInvalidInput. Errors: ErrKeyDisabled.
	Encrypt(ctx context.Context, keyID string, plaintext []byte, ec Context) (wrapped []byte, err error)

	// ReEncrypt opens wrapped as Decrypt does under from and fromEC, and wraps
	// the plaintext under to and toEC without handing it out. Errors: those of
	// Decrypt and of Encrypt.
	ReEncrypt(ctx context.Context, wrapped []byte, from string, fromEC Context, to string, toEC Context) (rewrapped []byte, err error)

	// DescribeKey tells about a key in any state; it resolves aliases.
	DescribeKey(ctx context.Context, keyID string) (KeyInfo, error)
}

// CheckPlaintext returns ErrInvalidInput unless a plaintext of size bytes may
// be passed to Encrypt.
func CheckPlaintext(size int) error {
	if size < 1 || size > MaxPlaintext {
		return fmt.Errorf("check plaintext: %d bytes, want 1 to %d: %w", size, MaxPlaintext, ErrInvalidInput)
	}
	return nil
}
