package aws

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"kmsfs/kmsprovider"
)

// Error is a call that failed. With errors.Is it matches the sentinel of its
// cause, and the context's error where time was up.
type Error struct {
	Operation string // as AWS names it: "Decrypt"
	KeyID     string // the ARN that was asked for
	Code      string // AWS's: "DisabledException"; empty without an answer
	Message   string // what AWS says, or what went wrong on the way
	RequestID string // of AWS; empty without an answer

	cause error // a sentinel of kmsprovider; nil if the caller gave up
	ended error // the context's error, if it has ended
	hint  string
}

// Error names the operation, the cause, and what AWS says. Not the key: callers
// name it.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s by AWS KMS", e.Operation)
	for _, part := range []error{e.cause, e.ended} {
		if part != nil {
			fmt.Fprintf(&b, ": %v", part)
		}
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ": %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap returns the sentinel and the context's error. The SDK's errors are left
// behind: they keep parts of answers.
func (e *Error) Unwrap() []error {
	var causes []error
	for _, c := range []error{e.cause, e.ended} {
		if c != nil {
			causes = append(causes, c)
		}
	}
	return causes
}

// Hint says what the user can do, or nothing.
func (e *Error) Hint() string { return e.hint }

// Hints, for causes that have one answer.
const (
	hintCredentials = "give credentials as the aws command takes them: AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, aws sso login, or an instance role"
	hintExpired     = "the AWS credentials have expired or are not valid: get new ones, with aws sso login for example"
	hintSignature   = "AWS does not accept the credentials: see that the secret access key is right, and the clock of this machine"
	hintConfig      = "see AWS_PROFILE, AWS_CONFIG_FILE and ~/.aws/config"
	hintDenied      = "the key policy or an IAM policy must allow this operation: see docs/AWS.md"
	hintDisabled    = "see its state with aws kms describe-key, enable it with aws kms enable-key"
	hintNotFound    = "see that region and account in the ARN are right, with aws kms describe-key"
	hintUsage       = "a symmetric encryption key is needed: KeySpec SYMMETRIC_DEFAULT, KeyUsage ENCRYPT_DECRYPT"
	hintEndpoint    = "see that the network lets this machine reach it; AWS_ENDPOINT_URL_KMS names another endpoint"
	hintCertificate = "AWS_CA_BUNDLE names the file of a certificate authority of your own"
)

// rule is what an error code of AWS means here.
type rule struct {
	cause error
	hint  string
}

// rules has the codes that mean something here. Those of throttling are the SDK's.
var rules = map[string]rule{
	"AccessDeniedException":      {kmsprovider.ErrAccessDenied, hintDenied},
	"AccessDenied":               {kmsprovider.ErrAccessDenied, hintDenied},
	"NotAuthorized":              {kmsprovider.ErrAccessDenied, hintDenied},
	"OptInRequired":              {kmsprovider.ErrAccessDenied, ""},
	"InvalidGrantTokenException": {kmsprovider.ErrAccessDenied, ""},

	"ExpiredTokenException":               {kmsprovider.ErrAccessDenied, hintExpired},
	"ExpiredToken":                        {kmsprovider.ErrAccessDenied, hintExpired},
	"UnrecognizedClientException":         {kmsprovider.ErrAccessDenied, hintExpired},
	"InvalidClientTokenId":                {kmsprovider.ErrAccessDenied, hintExpired},
	"InvalidSignatureException":           {kmsprovider.ErrAccessDenied, hintSignature},
	"SignatureDoesNotMatch":               {kmsprovider.ErrAccessDenied, hintSignature},
	"RequestExpired":                      {kmsprovider.ErrAccessDenied, hintSignature},
	"IncompleteSignature":                 {kmsprovider.ErrAccessDenied, hintSignature},
	"MissingAuthenticationToken":          {kmsprovider.ErrAccessDenied, hintCredentials},
	"MissingAuthenticationTokenException": {kmsprovider.ErrAccessDenied, hintCredentials},

	"DisabledException":        {kmsprovider.ErrKeyDisabled, hintDisabled},
	"KMSInvalidStateException": {kmsprovider.ErrKeyDisabled, hintDisabled},

	"NotFoundException":          {kmsprovider.ErrKeyNotFound, hintNotFound},
	"IncorrectKeyException":      {kmsprovider.ErrIncorrectKey, ""},
	"InvalidCiphertextException": {kmsprovider.ErrInvalidCiphertext, ""},
	"InvalidKeyUsageException":   {kmsprovider.ErrInvalidInput, hintUsage},

	"KMSInternalException":       {kmsprovider.ErrUnavailable, ""},
	"KeyUnavailableException":    {kmsprovider.ErrUnavailable, ""},
	"DependencyTimeoutException": {kmsprovider.ErrUnavailable, ""},
}

// translate makes an Error of what the SDK returned.
func translate(ctx context.Context, operation, keyID string, err error) error {
	e := &Error{Operation: operation, KeyID: keyID, ended: ctx.Err()}
	var api smithy.APIError
	var credentials *credentialsError
	var configuration *configError
	var status *smithyhttp.ResponseError
	switch {
	case errors.As(err, &configuration):
		e.cause, e.hint, e.Message = kmsprovider.ErrInvalidInput, hintConfig, err.Error()
	case errors.As(err, &credentials):
		e.blameCredentials(credentials)
	case errors.As(err, &api):
		e.Code, e.Message = bounded(api.ErrorCode()), bounded(api.ErrorMessage())
		errors.As(err, &status)
		e.judge(status)
	case isOver(err):
		e.cause, e.Message = kmsprovider.ErrUnavailable, "no answer came"
	default:
		e.blameNetwork(err)
	}
	if e.ended == context.Canceled {
		e.cause = nil // nobody waits: whether the KMS could answer is not known
	}
	var answered *awshttp.ResponseError
	if errors.As(err, &answered) {
		e.RequestID = bounded(answered.ServiceRequestID())
	}
	return e
}

// judge finds the cause of an error that AWS has named. A code that is not
// known here says at least whose fault it was.
func (e *Error) judge(status *smithyhttp.ResponseError) {
	code := 0
	if status != nil {
		code = status.HTTPStatusCode()
	}
	_, throttled := retry.DefaultThrottleErrorCodes[e.Code]
	known, ok := rules[e.Code]
	switch {
	case ok:
		e.cause, e.hint = known.cause, known.hint
	case throttled || code == http.StatusTooManyRequests:
		e.cause = kmsprovider.ErrThrottled
	case code >= http.StatusInternalServerError:
		e.cause = kmsprovider.ErrUnavailable
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		e.cause = kmsprovider.ErrAccessDenied
	default:
		e.cause = kmsprovider.ErrInvalidInput
	}
}

// blameCredentials is for a chain that yields none. Where a service refused to
// give some, they have expired; where one could not be reached, it may pass.
func (e *Error) blameCredentials(c *credentialsError) {
	e.cause, e.hint = kmsprovider.ErrAccessDenied, hintCredentials
	e.Message = "no credentials: " + bounded(c.Error())
	var operation *smithy.OperationError
	var send *smithyhttp.RequestSendError
	var api smithy.APIError
	switch {
	case e.ended != nil:
		e.cause = kmsprovider.ErrUnavailable
	case errors.As(c, &operation) && operation.ServiceID == "ec2imds": // not on an instance
	case errors.As(c, &api):
		e.Code, e.hint = bounded(api.ErrorCode()), hintExpired
	case errors.As(c, &send):
		e.cause, e.hint = kmsprovider.ErrUnavailable, ""
	}
}

// blameNetwork is for a request that was not answered, or not by a KMS.
func (e *Error) blameNetwork(err error) {
	e.cause = kmsprovider.ErrUnavailable
	var send *smithyhttp.RequestSendError
	var certificate *tls.CertificateVerificationError
	var answer *smithy.DeserializationError
	var status *smithyhttp.ResponseError
	switch {
	case errors.As(err, &certificate):
		e.hint, e.Message = hintCertificate, bounded(certificate.Error())
	case errors.As(err, &send):
		e.hint, e.Message = hintEndpoint, bounded(send.Err.Error())
	case errors.As(err, &status) && status.HTTPStatusCode() == http.StatusTooManyRequests: // by a proxy
		e.cause, e.Message = kmsprovider.ErrThrottled, "429 Too Many Requests"
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
