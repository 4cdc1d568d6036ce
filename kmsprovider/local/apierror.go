package local

import (
	"fmt"

	"kmsfs/kmsprovider"
)

// Error is what an operation is refused with: AWS KMS's code and a message. It
// matches the sentinel of package kmsprovider that says the same.
type Error struct {
	Code    string // "DisabledException", "ValidationException", …
	Message string // may be empty, as some of AWS's are
	cause   error
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Unwrap returns the sentinel or the cause; nil where there is none.
func (e *Error) Unwrap() error { return e.cause }

// The codes of AWS KMS that more than one place uses.
const (
	codeAccessDenied      = "AccessDeniedException"
	codeAlreadyExists     = "AlreadyExistsException"
	codeDisabled          = "DisabledException"
	codeDryRun            = "DryRunOperationException"
	codeIncorrectKey      = "IncorrectKeyException"
	codeInternal          = "KMSInternalException"
	codeInvalidAlias      = "InvalidAliasNameException"
	codeInvalidArn        = "InvalidArnException"
	codeInvalidCiphertext = "InvalidCiphertextException"
	codeInvalidState      = "KMSInvalidStateException"
	codeLimit             = "LimitExceededException"
	codeMalformedPolicy   = "MalformedPolicyDocumentException"
	codeNotFound          = "NotFoundException"
	codeUnsupported       = "UnsupportedOperationException"
	codeValidation        = "ValidationException"
)

// sentinels are what codes mean to callers of any KMS. A code that is not here
// has no sentinel.
var sentinels = map[string]error{
	codeAccessDenied:      kmsprovider.ErrAccessDenied,
	codeDisabled:          kmsprovider.ErrKeyDisabled,
	codeIncorrectKey:      kmsprovider.ErrIncorrectKey,
	codeInternal:          kmsprovider.ErrUnavailable,
	codeInvalidAlias:      kmsprovider.ErrInvalidInput,
	codeInvalidArn:        kmsprovider.ErrInvalidInput,
	codeInvalidCiphertext: kmsprovider.ErrInvalidCiphertext,
	codeInvalidState:      kmsprovider.ErrKeyDisabled,
	codeMalformedPolicy:   kmsprovider.ErrInvalidInput,
	codeNotFound:          kmsprovider.ErrKeyNotFound,
	codeUnsupported:       kmsprovider.ErrInvalidInput,
	codeValidation:        kmsprovider.ErrInvalidInput,
	codeAlreadyExists:     ErrAliasExists,
}

// refuse makes an Error of that code.
func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), cause: sentinels[code]}
}

// invalid is the ValidationException of one member of a request, in AWS's words.
func invalid(member, constraint string, args ...any) *Error {
	return refuse(codeValidation, "1 validation error detected: Value at '%s' failed to satisfy constraint: %s", member, fmt.Sprintf(constraint, args...))
}

// of gives e another sentinel than that of its code.
func (e *Error) of(cause error) *Error {
	e.cause = cause
	return e
}
