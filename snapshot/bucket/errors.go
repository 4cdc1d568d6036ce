package bucket

import "errors"

// What can go wrong, to be told with errors.Is.
var (
	ErrNotFound           = errors.New("no such object")
	ErrPrecondition       = errors.New("the object is not what it should be for this")
	ErrNoBucket           = errors.New("no such bucket")
	ErrAccessDenied       = errors.New("access denied")
	ErrExpiredCredentials = errors.New("the credentials have expired")
	ErrThrottled          = errors.New("too many requests")
	ErrUnavailable        = errors.New("the store is not available")
	// ErrInvalid is a URL, a key or an option that no store is asked about.
	ErrInvalid = errors.New("invalid")
)

// Error is an operation that failed. With errors.Is it matches the sentinel of
// its cause, and the context's error where time was up.
type Error struct {
	Op     string // "get", "put", "list"
	Bucket string
	Key    string // with the bucket's prefix; empty where it is about the bucket
	Err    error
}

func (e *Error) Error() string {
	return e.Op + " s3://" + e.Bucket + "/" + e.Key + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }
