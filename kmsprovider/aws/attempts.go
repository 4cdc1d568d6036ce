package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// maxBackoff bounds the wait between two attempts: a KMS that is back is found
// after that at the latest. The SDK's own limit is 20 s.
const maxBackoff = 5 * time.Second

// attempts is the retryer of one call: the client's, which counts the retries of
// all calls, with a memory. The SDK says only that time was up; what the KMS
// said before is what users can act on.
type attempts struct {
	aws.RetryerV2
	last error // of the attempts that ended by themselves
}

// use puts a in the place of the client's retryer, for one call.
func (a *attempts) use(o *kms.Options) {
	a.RetryerV2 = o.Retryer.(aws.RetryerV2) // newRetryer's
	o.Retryer = a
}

// IsErrorRetryable is called after each failed attempt.
func (a *attempts) IsErrorRetryable(err error) bool {
	if isOver(err) {
		return false
	}
	a.last = err
	// The SDK does not take a connection that is lost within an answer for lost.
	return !isFinal(err) && (a.RetryerV2.IsErrorRetryable(err) || errors.Is(err, io.ErrUnexpectedEOF))
}

// cause is the failure of the last attempt, if the call's own failure is that
// time was up while it waited for another one.
func (a *attempts) cause(err error) error {
	if isOver(err) && a.last != nil {
		return a.last
	}
	return err
}

// isOver tells whether the caller's context ended an attempt.
func isOver(err error) bool {
	var canceled interface{ CanceledError() bool }
	return errors.As(err, &canceled) && canceled.CanceledError() ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// isFinal finds failures that the SDK takes for lost connections, and that no
// other attempt makes better.
func isFinal(err error) bool {
	var credentials *credentialsError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &credentials) || errors.As(err, &certificate)
}
