package bucket

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Hints, for causes that have one answer.
const (
	hintCredentials = "give credentials as the aws command takes them: AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, aws sso login, or an instance role"
	hintExpired     = "get new credentials, with aws sso login for example; the same command then goes on where it was"
	hintSignature   = "the store does not accept the credentials: see that the secret access key is right, and the clock of this machine"
	hintConfig      = "see AWS_PROFILE, AWS_CONFIG_FILE and ~/.aws/config"
	hintDenied      = "a policy must allow this: see docs/S3.md"
	hintBucket      = "see its name, and AWS_ENDPOINT_URL_S3 if it is not in AWS"
	hintRegion      = "see AWS_REGION and AWS_ENDPOINT_URL_S3"
	hintEndpoint    = "see that the network lets this machine reach it; AWS_ENDPOINT_URL_S3 names another endpoint"
	hintCertificate = "AWS_CA_BUNDLE names the file of a certificate authority of your own"
)

// rule is what an error code of S3 means here.
type rule struct {
	cause error
	hint  string
}

// rules has the codes that mean something here. Those of throttling are the SDK's.
var rules = map[string]rule{
	"NoSuchKey":                  {ErrNotFound, ""},
	"NoSuchUpload":               {ErrNotFound, ""},
	"InvalidPart":                {ErrInvalid, ""},
	"PreconditionFailed":         {ErrPrecondition, ""},
	"ConditionalRequestConflict": {ErrPrecondition, ""},

	"NoSuchBucket":                       {ErrNoBucket, hintBucket},
	"PermanentRedirect":                  {ErrInvalid, hintRegion},
	"AuthorizationHeaderMalformed":       {ErrInvalid, hintRegion},
	"IllegalLocationConstraintException": {ErrInvalid, hintRegion},

	"AccessDenied":          {ErrAccessDenied, hintDenied},
	"AllAccessDisabled":     {ErrAccessDenied, hintDenied},
	"AccountProblem":        {ErrAccessDenied, ""},
	"InvalidAccessKeyId":    {ErrAccessDenied, hintCredentials},
	"InvalidToken":          {ErrAccessDenied, hintCredentials},
	"SignatureDoesNotMatch": {ErrAccessDenied, hintSignature},
	"RequestTimeTooSkewed":  {ErrAccessDenied, hintSignature},

	"BadDigest":                    {ErrMismatch, ""},
	"InvalidDigest":                {ErrMismatch, ""},
	"XAmzContentSHA256Mismatch":    {ErrMismatch, ""},
	"XAmzContentChecksumMismatch":  {ErrMismatch, ""},
	"IncompleteBody":               {ErrUnavailable, ""},
	"RequestTimeout":               {ErrUnavailable, ""},
	"OperationAborted":             {ErrUnavailable, ""},
	"InternalError":                {ErrUnavailable, ""},
	"ServiceUnavailable":           {ErrUnavailable, ""},
	"TooManyRequests":              {ErrThrottled, ""},
	"KMS.DisabledException":        {ErrAccessDenied, "the KMS key of the bucket, or of --sse-kms-key, is disabled"},
	"KMS.NotFoundException":        {ErrInvalid, "see the KMS key of the bucket, or of --sse-kms-key"},
	"KMS.KMSInvalidStateException": {ErrAccessDenied, "the KMS key of the bucket, or of --sse-kms-key, cannot be used"},
}

// expired are the codes of credentials that new ones would replace.
var expired = map[string]bool{"ExpiredToken": true, "ExpiredTokenException": true, "RequestExpired": true, "TokenRefreshRequired": true}

// translate makes an Error of what the SDK returned. made, where there is one,
// was the retryer of the call. An Error stays what it is.
func (s *store) translate(ctx context.Context, op, key string, err error, made *attempts) error {
	var done *Error
	if errors.As(err, &done) {
		return done
	}
	err = made.cause(err)
	e := &Error{Op: op, Bucket: s.name, Key: key, ended: ctx.Err()}
	var api smithy.APIError
	var credentials *credentialsError
	var configuration *configError
	switch {
	case errors.As(err, &configuration):
		e.Err, e.hint, e.Message = ErrInvalid, hintConfig, bounded(err.Error())
	case errors.As(err, &credentials):
		e.blameCredentials(credentials)
	case errors.As(err, &api):
		e.Code, e.Message = bounded(api.ErrorCode()), bounded(api.ErrorMessage())
		e.judge(statusOf(err))
	case isOver(err):
		e.Err, e.Message = ErrUnavailable, "no answer came"
	default:
		e.blameNetwork(err)
	}
	if e.ended == context.Canceled {
		e.Err = nil // nobody waits: whether the store could answer is not known
	}
	var answered *awshttp.ResponseError
	if errors.As(err, &answered) {
		e.RequestID = bounded(answered.ServiceRequestID())
	}
	return e
}

// judge finds the cause of an error that the store has named. A code that is not
// known here says at least whose fault it was.
func (e *Error) judge(status int) {
	_, throttled := retry.DefaultThrottleErrorCodes[e.Code]
	known, ok := rules[e.Code]
	switch {
	case ok:
		e.Err, e.hint = known.cause, known.hint
	case expired[e.Code]:
		e.Err, e.hint = ErrExpiredCredentials, hintExpired
	case throttled || status == http.StatusTooManyRequests:
		e.Err = ErrThrottled
	case status == http.StatusPreconditionFailed:
		e.Err = ErrPrecondition
	case status == http.StatusNotFound:
		e.Err = ErrNotFound
	case status >= http.StatusInternalServerError && status != http.StatusNotImplemented:
		e.Err = ErrUnavailable
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		e.Err, e.hint = ErrAccessDenied, hintDenied
	case status >= http.StatusMultipleChoices && status < http.StatusBadRequest:
		e.Err, e.hint = ErrInvalid, hintRegion
	default:
		e.Err = ErrInvalid
	}
}

// blameCredentials is for a chain that yields none. Where a service refused to
// give some, they have expired; where one could not be reached, it may pass.
func (e *Error) blameCredentials(c *credentialsError) {
	e.Err, e.hint = ErrAccessDenied, hintCredentials
	e.Message = "no credentials: " + bounded(c.Error())
	var operation *smithy.OperationError
	var send *smithyhttp.RequestSendError
	var api smithy.APIError
	switch {
	case e.ended != nil:
		e.Err = ErrUnavailable
	case errors.As(c, &operation) && operation.ServiceID == "ec2imds": // not on an instance
	case errors.As(c, &api):
		e.Err, e.Code, e.hint = ErrExpiredCredentials, bounded(api.ErrorCode()), hintExpired
	case errors.As(c, &send):
		e.Err, e.hint = ErrUnavailable, ""
	}
}

// blameNetwork is for a request that was not answered, or not by a store.
func (e *Error) blameNetwork(err error) {
	e.Err = ErrUnavailable
	var send *smithyhttp.RequestSendError
	var certificate *tls.CertificateVerificationError
	var answer *smithy.DeserializationError
	switch {
	case errors.Is(err, errStalled):
		e.Message = errStalled.Error()
	case errors.As(err, &certificate):
		e.hint, e.Message = hintCertificate, bounded(certificate.Error())
	case errors.As(err, &send):
		e.hint, e.Message = hintEndpoint, bounded(send.Err.Error())
	case statusOf(err) == http.StatusTooManyRequests: // by a proxy
		e.Err, e.Message = ErrThrottled, "429 Too Many Requests"
	case errors.As(err, &answer):
		e.hint, e.Message = hintEndpoint, "the answer cannot be read"
		if answer.Err != nil {
			e.Message += ": " + bounded(answer.Err.Error())
		}
	default:
		e.Message = bounded(err.Error())
	}
}

// maxText bounds what is quoted from others, in bytes.
const maxText = 500

// bounded makes the words of others fit for a line of a log.
func bounded(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
