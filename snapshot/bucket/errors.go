package bucket

import (
	"errors"
	"strings"
)

// What can go wrong, to be told with errors.Is.
var (
	ErrNotFound           = errors.New("no such object")
	ErrPrecondition       = errors.New("the object is not what it should be for this")
	ErrNoBucket           = errors.New("no such bucket")
	ErrAccessDenied       = errors.New("access denied")
	ErrExpiredCredentials = errors.New("the credentials have expired")
	ErrThrottled          = errors.New("too many requests")
	ErrUnavailable        = errors.New("the store is not available")
	// ErrMismatch is content that is not what its checksum says: it changed on
	// the way, in the store, or, of what was put, while it was read.
	ErrMismatch = errors.New("the content does not have its checksum")
	// ErrInvalid is a URL, a key, an option or a configuration with which no store
	// is asked, or a request that the store does not take.
	ErrInvalid = errors.New("invalid")
)

// Error is an operation that failed. With errors.Is it matches the sentinel of
// its cause, and the context's error where time was up.
type Error struct {
	Op        string // "get", "put", "list"
	Bucket    string
	Key       string // with the bucket's prefix; empty where it is about the bucket
	Err       error  // a sentinel of this package; nil if the caller gave up
	Code      string // S3's: "NoSuchKey"; empty without an answer
	Message   string // what the store says, or what went wrong on the way
	RequestID string // of the store; empty without an answer

	ended error // the context's error, if it has ended
	hint  string
}

// Error names operation, bucket and key, the cause, and what the store says.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op + " s3://" + e.Bucket)
	if e.Key != "" {
		b.WriteString("/" + e.Key)
	}
	for _, cause := range e.Unwrap() {
		b.WriteString(": " + cause.Error())
	}
	for _, said := range []string{e.Code, e.Message} {
		if said != "" {
			b.WriteString(": " + said)
		}
	}
	if e.RequestID != "" {
		b.WriteString(" (request " + e.RequestID + ")")
	}
	return b.String()
}

// Unwrap returns the sentinel and the context's error.
func (e *Error) Unwrap() []error {
	var causes []error
	for _, c := range []error{e.Err, e.ended} {
		if c != nil {
			causes = append(causes, c)
		}
	}
	return causes
}

// Hint says what the user can do, or nothing.
func (e *Error) Hint() string { return e.hint }
