package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// attempts is the retryer of one call: the client's, with a memory.
type attempts struct {
	aws.RetryerV2
	renew   func()
	renewed bool  // the credentials were, once
	last    error // of the attempts that ended by themselves
	// open: an attempt failed so that the store may have done what was asked.
	open bool
}

// attempts makes the retryer of a call.
func (s *store) attempts() *attempts { return &attempts{renew: s.renew} }

// use puts a in the place of the client's retryer, for one call.
func (a *attempts) use(o *s3.Options) {
	a.RetryerV2 = o.Retryer.(aws.RetryerV2) // newRetryer's
	o.Retryer = a
}

// IsErrorRetryable is called after each failed attempt.
func (a *attempts) IsErrorRetryable(err error) bool {
	if isOver(err) {
		return false
	}
	a.last = err
	var api smithy.APIError
	answered := errors.As(err, &api)
	a.open = a.open || !answered || statusOf(err) >= http.StatusInternalServerError
	switch {
	case isFinal(err):
		return false
	case answered && expired[api.ErrorCode()]:
		// Once: those that the chain keeps may have ended before their time.
		renew := !a.renewed
		a.renewed = true
		if renew {
			a.renew()
		}
		return renew
	case answered && api.ErrorCode() == "ConditionalRequestConflict":
		return true // somebody writes the same object at this time
	}
	// The SDK does not take a connection that is lost within an answer for lost.
	return a.RetryerV2.IsErrorRetryable(err) || errors.Is(err, errStalled) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// cause is the failure of the last attempt, if the call's own failure is that
// time was up while it waited for another one.
func (a *attempts) cause(err error) error {
	if a != nil && isOver(err) && a.last != nil {
		return a.last
	}
	return err
}

// isOver tells whether the caller's context ended an attempt.
func isOver(err error) bool {
	if errors.Is(err, errStalled) {
		return false
	}
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

// statusOf is the HTTP status of the answer that an error is; 0 without one.
func statusOf(err error) int {
	var status *smithyhttp.ResponseError
	if !errors.As(err, &status) || status.Response == nil {
		return 0
	}
	return status.HTTPStatusCode()
}
