package kmsserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"kmsfs/kmsprovider/local"
)

// withPrincipal is a KMS that knows alice, and takes her for the root.
type withPrincipal struct{ KMS }

func (k withPrincipal) Principal(ctx context.Context, id string) (local.Caller, []byte, error) {
	if id == alice.id {
		return k.Root(), []byte(alice.secret), nil
	}
	return k.KMS.Principal(ctx, id)
}

// signed makes a request of alice's.
func signed(t *testing.T, url, body string, k keyPair, service string, when time.Time, before func(*http.Request)) *http.Request {
	t.Helper()
	r := post(t, url, "ListKeys", body)
	if before != nil {
		before(r)
	}
	sum := sha256.Sum256([]byte(body))
	err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: k.id, SecretAccessKey: k.secret}, r, hex.EncodeToString(sum[:]), service, "local", when)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignatures(t *testing.T) {
	now := time.Now() // the server's, too, however long this takes
	s := start(t, Options{KMS: withPrincipal{newKeystore(t)}, Now: func() time.Time { return now }})
	replace := func(header, old, new string) func(*http.Request) {
		return func(r *http.Request) {
			value := r.Header.Get(header)
			if !strings.Contains(value, old) {
				t.Fatalf("%s: %q has no %q", header, value, old)
			}
			r.Header.Set(header, strings.Replace(value, old, new, 1))
		}
	}
	body := func(s string) func(*http.Request) {
		return func(r *http.Request) {
			r.Body, r.GetBody = io.NopCloser(strings.NewReader(s)), nil
		}
	}
	signature := func(r *http.Request) string { return r.Header.Get("Authorization") }
	for _, c := range []struct {
		name    string
		key     keyPair
		service string
		when    time.Time
		before  func(*http.Request) // it is signed
		after   func(*http.Request)
		kind    string // "" if it is good
		says    string
	}{
		{name: "good"},
		{name: "four minutes old", when: now.Add(-4 * time.Minute)},
		{name: "four minutes early", when: now.Add(4 * time.Minute)},
		{name: "six minutes old", when: now.Add(-6 * time.Minute), kind: "InvalidSignatureException", says: "Signature expired"},
		{name: "six minutes early", when: now.Add(6 * time.Minute), kind: "InvalidSignatureException", says: "Signature not yet current"},
		{name: "unsigned", after: func(r *http.Request) { r.Header.Del("Authorization") }, kind: "MissingAuthenticationTokenException"},
		{name: "an unknown key", key: keyPair{"AKIANOBODYNOBODYNOBO", "x"}, kind: "UnrecognizedClientException"},
		{name: "a wrong secret", key: keyPair{alice.id, "x"}, kind: "InvalidSignatureException", says: "does not match"},
		{name: "a session token", before: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, kind: "UnrecognizedClientException"},
		{name: "another service", service: "s3", kind: "InvalidSignatureException", says: "'kms'"},
		{name: "another signature", after: func(r *http.Request) {
			a := signature(r)
			last := "0"
			if strings.HasSuffix(a, last) {
				last = "1"
			}
			r.Header.Set("Authorization", a[:len(a)-1]+last)
		}, kind: "InvalidSignatureException", says: "does not match"},
		{name: "a changed body", after: body(`[]`), kind: "InvalidSignatureException", says: "does not match"},
		{name: "another operation", after: replace("X-Amz-Target", "ListKeys", "ListAliases"), kind: "InvalidSignatureException", says: "does not match"},
		{name: "another host", after: func(r *http.Request) { r.Host = "localhost" }, kind: "InvalidSignatureException", says: "does not match"},
		{name: "another date", after: func(r *http.Request) { r.Header.Set("X-Amz-Date", now.Add(time.Second).UTC().Format(signatureDate)) }, kind: "InvalidSignatureException"},
		{name: "another region", after: replace("Authorization", "/local/", "/remote/"), kind: "InvalidSignatureException", says: "does not match"},
		{name: "an unsigned X-Amz header", after: func(r *http.Request) { r.Header.Set("X-Amz-Other", "x") }, kind: "InvalidSignatureException", says: "'x-amz-other' must be a 'SignedHeader'"},
		{name: "a target that is not signed", after: replace("Authorization", ";x-amz-target", ""), kind: "InvalidSignatureException", says: "'x-amz-target'"},
		{name: "a host that is not signed", after: replace("Authorization", ";host", ""), kind: "InvalidSignatureException", says: "'host'"},
		{name: "no date", after: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, kind: "IncompleteSignatureException", says: "X-Amz-Date"},
		{name: "a date in another form", after: func(r *http.Request) { r.Header.Set("X-Amz-Date", "today") }, kind: "IncompleteSignatureException", says: "Date"},
		{name: "another day in the scope", after: replace("Authorization", now.UTC().Format("20060102"), "20010101"), kind: "InvalidSignatureException", says: "Credential scope"},
		{name: "another algorithm", after: replace("Authorization", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), kind: "IncompleteSignatureException", says: "algorithm"},
		{name: "basic authentication", after: func(r *http.Request) { r.SetBasicAuth("a", "b") }, kind: "IncompleteSignatureException"},
		{name: "no credential", after: replace("Authorization", "Credential=", "Kredit="), kind: "IncompleteSignatureException", says: "'Credential'"},
		{name: "no signature", after: replace("Authorization", "Signature=", "X="), kind: "IncompleteSignatureException", says: "'Signature'"},
		{name: "a scope too short", after: replace("Authorization", "/local/", "/"), kind: "IncompleteSignatureException", says: "5 slash-delimited"},
		{name: "a parameter twice", after: replace("Authorization", "Credential=", "Signature=x, Credential="), kind: "IncompleteSignatureException", says: "twice"},
		{name: "a signature in the query", after: func(r *http.Request) { r.Header.Del("Authorization"); r.URL.RawQuery = "X-Amz-Signature=x" }, kind: "UnknownOperationException"},
		{name: "headers with spaces and repeats", before: func(r *http.Request) { r.Header["X-Amz-Meta"] = []string{"a   b ", "c"} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.key == (keyPair{}) {
				c.key = alice
			}
			if c.service == "" {
				c.service = signatureService
			}
			if c.when.IsZero() {
				c.when = now
			}
			r := signed(t, s.url, "{}", c.key, c.service, c.when, c.before)
			if c.after != nil {
				c.after(r)
			}
			got := do(t, http.DefaultClient, r)
			want := 400
			if c.kind == "" {
				want = 200
			}
			if got.status != want || got.kind != c.kind || !strings.Contains(got.message, c.says) {
				t.Errorf("%d %s: %q", got.status, got.kind, got.message)
			}
		})
	}
}

// AWS's client, as its users see the failures.
func TestSignaturesOfTheSDK(t *testing.T) {
	s := start(t, Options{KMS: withPrincipal{newKeystore(t)}})
	if _, err := s.client(alice).ListKeys(t.Context(), &kms.ListKeysInput{}); err != nil {
		t.Errorf("the right key: %v", err)
	}
	for _, c := range []struct {
		name string
		key  keyPair
		code string
	}{
		{"a wrong secret", keyPair{alice.id, "wrong"}, "InvalidSignatureException"},
		{"an unknown key", keyPair{"AKIANOBODYNOBODYNOBO", "x"}, "UnrecognizedClientException"},
	} {
		_, err := s.client(c.key).ListKeys(t.Context(), &kms.ListKeysInput{})
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	// Its clock is wrong; it says so, and with retries it corrects itself.
	late := start(t, Options{KMS: withPrincipal{newKeystore(t)}, Now: func() time.Time { return time.Now().Add(time.Hour) }})
	_, err := late.client(alice).ListKeys(t.Context(), &kms.ListKeysInput{})
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != "InvalidSignatureException" || !strings.Contains(api.ErrorMessage(), "Signature expired") {
		t.Errorf("an hour late: %v", err)
	}
}

func FuzzParseAuthorization(f *testing.F) {
	const seed = "AWS4-HMAC-SHA256 Credential=AKIA/20260131/local/kms/aws4_request, SignedHeaders=host;x-amz-date, Signature=abc"
	if a, err := parseAuthorization(seed); err != nil || a.accessKeyID != "AKIA" || len(a.headers) != 2 {
		f.Fatalf("a seed is no header: %v", err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, header string) {
		a, err := parseAuthorization(header)
		var refused *apiError
		if err != nil && !errors.As(err, &refused) {
			t.Fatalf("error of no kind: %v", err)
		}
		if err == nil && (a.accessKeyID == "" || a.signature == "" || len(a.headers) == 0) {
			t.Fatalf("incomplete: %+v", a)
		}
	})
}
