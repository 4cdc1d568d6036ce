package kmsprovider

import (
	"errors"
	"fmt"
)

// The causes that callers tell apart, with errors.Is. Providers wrap them with
// what they did and to which key.
var (
	// ErrAccessDenied: the KMS knows the caller and says no.
	ErrAccessDenied = errors.New("access denied by the KMS")
	// ErrKeyDisabled: the key exists and is in a state that allows no use:
	// disabled, pending deletion, its material expired.
	ErrKeyDisabled = errors.New("KMS key is disabled")
	// ErrKeyNotFound: no key or alias of that name.
	ErrKeyNotFound = errors.New("KMS key not found")
	// ErrIncorrectKey: wrapped under another key than the one named.
	ErrIncorrectKey = errors.New("wrapped under another KMS key")
	// ErrInvalidCiphertext: changed, truncated, not this KMS's, or of another
	// encryption context. A KMS does not say which.
	ErrInvalidCiphertext = errors.New("invalid ciphertext or encryption context")
	// ErrThrottled: too many requests, also after retries.
	ErrThrottled = errors.New("throttled by the KMS")
	// ErrUnavailable: the KMS cannot be reached, or failed on its side.
	ErrUnavailable = errors.New("KMS unavailable")
	// ErrNotUsable: this process was not given what the key takes, the identity
	// of an offline key for one. Nothing was asked. It is an ErrAccessDenied; of
	// several keys that fail, another one says more.
	ErrNotUsable = fmt.Errorf("key cannot be used here: %w", ErrAccessDenied)
	// ErrInvalidInput: refused whatever the KMS's state: too large, malformed.
	ErrInvalidInput = errors.New("invalid input")
)
