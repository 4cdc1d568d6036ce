package envelope

import (
	"errors"
	"fmt"
)

// Sentinels, wrapped with what went wrong where.
var (
	// ErrMalformed: bytes that are no message of a known format; the text names the field.
	ErrMalformed = errors.New("malformed message")
	// ErrNotAuthentic: a tag or the commitment is wrong; nobody with the data key wrote this.
	ErrNotAuthentic = errors.New("message is not authentic")
	// ErrSignature: the end of a signed message did not verify. What was released before came from a holder of the
	// data key, but not for certain from the one who signed.
	ErrSignature = errors.New("signature does not verify")
	// ErrCommitmentPolicy: the policy refuses the suite.
	ErrCommitmentPolicy = errors.New("refused by the commitment policy")
	// ErrContext: the encryption context is not the one asked for, or cannot be used.
	ErrContext = errors.New("encryption context refused")
	// ErrNoKey: none of the message's data keys opened; wraps the cause for each.
	ErrNoKey = errors.New("no data key could be opened")
	// ErrTooManyKeys: more wrapped data keys than allowed.
	ErrTooManyKeys = errors.New("too many encrypted data keys")
	// ErrSigned: a signed message where only unsigned ones are wanted.
	ErrSigned = errors.New("message is signed")
	// ErrTooLarge: a frame or a body beyond what may be held in memory.
	ErrTooLarge = errors.New("too large")
)

// malformed is an ErrMalformed that names the field.
func malformed(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), ErrMalformed)
}
