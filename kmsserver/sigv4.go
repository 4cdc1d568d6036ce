package kmsserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"kmsfs/kmsprovider/local"
)

const (
	signatureAlgorithm = "AWS4-HMAC-SHA256"
	signatureService   = "kms"
	signatureDate      = "20060102T150405Z"
	maxSkew            = 5 * time.Minute
)

// Messages of AWS's.
const (
	badToken     = "The security token included in the request is invalid."
	badSignature = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method."
)

// authorization is an Authorization header of Signature Version 4.
type authorization struct {
	accessKeyID string
	date        string // of the scope: 20260131
	region      string
	headers     []string // that were signed, in lower case
	signature   string
}

// signer returns the principal that signed the request.
func (s *Server) signer(ctx context.Context, r *http.Request, body []byte) (local.Caller, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return local.Caller{}, refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	a, err := parseAuthorization(header)
	if err != nil {
		return local.Caller{}, err
	}
	if err := a.coversAll(r); err != nil {
		return local.Caller{}, err
	}
	when, err := s.checkDate(r, a)
	if err != nil {
		return local.Caller{}, err
	}
	if r.Header.Get("X-Amz-Security-Token") != "" { // there are no temporary credentials here
		return local.Caller{}, refuse("UnrecognizedClientException", badToken)
	}
	caller, secret, err := s.kms.Principal(ctx, a.accessKeyID)
	if err != nil {
		return local.Caller{}, err
	}
	defer clear(secret)
	signature, err := a.recompute(ctx, r, body, secret, when)
	if err != nil {
		return local.Caller{}, err
	}
	if !hmac.Equal([]byte(signature), []byte(a.signature)) {
		return local.Caller{}, refuse("InvalidSignatureException", badSignature)
	}
	return caller, nil
}

// parseAuthorization reads
// AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/kms/aws4_request, SignedHeaders=A;B, Signature=HEX.
func parseAuthorization(header string) (authorization, error) {
	incomplete := func(format string, args ...any) (authorization, error) {
		return authorization{}, refuse("IncompleteSignatureException", fmt.Sprintf(format, args...))
	}
	algorithm, rest, _ := strings.Cut(header, " ")
	if algorithm != signatureAlgorithm {
		return incomplete("Unsupported AWS 'algorithm': '%.40s'.", algorithm)
	}
	fields := make(map[string]string)
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := fields[name]; twice {
			return incomplete("Authorization header has '%.40s' twice.", name)
		}
		fields[name] = value
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			return incomplete("Authorization header requires '%s' parameter.", name)
		}
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || slices.Contains(scope, "") {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	if scope[3] != signatureService || scope[4] != "aws4_request" {
		return authorization{}, refuse("InvalidSignatureException", "Credential should be scoped to correct service: 'kms', and end with 'aws4_request'.")
	}
	return authorization{
		accessKeyID: scope[0], date: scope[1], region: scope[2],
		headers: strings.Split(fields["SignedHeaders"], ";"), signature: fields["Signature"],
	}, nil
}

// coversAll refuses a request with parts that could be exchanged under the
// signature.
func (a authorization) coversAll(r *http.Request) error {
	must := []string{"host"}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") {
			must = append(must, lower)
		}
	}
	slices.Sort(must)
	for _, name := range must {
		if !slices.Contains(a.headers, name) {
			return refuse("InvalidSignatureException", fmt.Sprintf("'%.100s' must be a 'SignedHeader' in the AWS Authorization.", name))
		}
	}
	return nil
}

// checkDate returns when the request was signed, which must be about now.
func (s *Server) checkDate(r *http.Request, a authorization) (time.Time, error) {
	text := r.Header.Get("X-Amz-Date")
	if text == "" {
		return time.Time{}, refuse("IncompleteSignatureException", "Authorization header requires existence of an 'X-Amz-Date' header.")
	}
	when, err := time.Parse(signatureDate, text)
	if err != nil {
		return time.Time{}, refuse("IncompleteSignatureException", "Date must be in ISO-8601 'basic format', such as 20260131T120000Z.")
	}
	if !strings.HasPrefix(text, a.date+"T") {
		return time.Time{}, refuse("InvalidSignatureException", fmt.Sprintf("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%.20s' != '%s'.", a.date, text[:8]))
	}
	now := s.now().UTC()
	at := func(t time.Time) string { return t.UTC().Format(signatureDate) }
	switch earliest, latest := now.Add(-maxSkew), now.Add(maxSkew); {
	case when.Before(earliest):
		return time.Time{}, refuse("InvalidSignatureException", fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)", text, at(earliest), at(now)))
	case when.After(latest):
		return time.Time{}, refuse("InvalidSignatureException", fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)", text, at(latest), at(now)))
	}
	return when, nil
}

// recompute signs the request as its sender should have, with AWS's signer.
func (a authorization) recompute(ctx context.Context, r *http.Request, body, secret []byte, when time.Time) (string, error) {
	// The signer signs all headers that it finds, so it gets those alone.
	again := &http.Request{Method: r.Method, Host: r.Host, URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path}, Header: make(http.Header)}
	for _, name := range a.headers {
		switch name {
		case "host":
		case "content-length":
			again.ContentLength = int64(len(body))
		default:
			canonical := http.CanonicalHeaderKey(name)
			again.Header[canonical] = slices.Clone(r.Header[canonical])
		}
	}
	sum := sha256.Sum256(body)
	credentials := aws.Credentials{AccessKeyID: a.accessKeyID, SecretAccessKey: string(secret)}
	// A signer of its own: one that is kept would keep keys.
	if err := v4.NewSigner().SignHTTP(ctx, credentials, again, hex.EncodeToString(sum[:]), signatureService, a.region, when); err != nil {
		return "", fmt.Errorf("sign request again: %w", err)
	}
	signed, err := parseAuthorization(again.Header.Get("Authorization"))
	if err != nil {
		return "", fmt.Errorf("sign request again: %w", err)
	}
	return signed.signature, nil
}
