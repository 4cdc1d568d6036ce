package kmsserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

func TestRequestsThatAreNoCalls(t *testing.T) {
	s := start(t, Options{KMS: newKeystore(t), Auth: AuthNone})
	with := func(r *http.Request, change func(*http.Request)) *http.Request {
		change(r)
		return r
	}
	for _, c := range []struct {
		name    string
		request *http.Request
		status  int
		kind    string
	}{
		{"no target", with(post(t, s.url, "ListKeys", "{}"), func(r *http.Request) { r.Header.Del("X-Amz-Target") }), 400, "UnknownOperationException"},
		{"another service's target", with(post(t, s.url, "", "{}"), func(r *http.Request) { r.Header.Set("X-Amz-Target", "DynamoDB.ListKeys") }), 400, "UnknownOperationException"},
		{"no operation of AWS", post(t, s.url, "ListLocks", "{}"), 400, "UnknownOperationException"},
		{"an operation of our own", post(t, s.url, "CreatePrincipal", `{"PrincipalName": "alice"}`), 400, "UnknownOperationException"},
		{"an operation that is not here", post(t, s.url, "Sign", "{}"), 400, "UnsupportedOperationException"},
		{"another path", post(t, s.url+"keys", "ListKeys", "{}"), 400, "UnknownOperationException"},
		{"a query", post(t, s.url+"?a=b", "ListKeys", "{}"), 400, "UnknownOperationException"},
		{"GET", with(post(t, s.url, "ListKeys", ""), func(r *http.Request) { r.Method = http.MethodGet }), 400, "UnknownOperationException"},
		{"no JSON", post(t, s.url, "ListKeys", "{"), 400, "SerializationException"},
		{"an empty body", post(t, s.url, "ListKeys", ""), 400, "SerializationException"},
		{"two objects", post(t, s.url, "ListKeys", "{}{}"), 400, "SerializationException"},
		{"a list", post(t, s.url, "ListKeys", "[]"), 400, "SerializationException"},
		{"the wrong type", post(t, s.url, "Encrypt", `{"KeyId": 7}`), 400, "SerializationException"},
		{"no base64", post(t, s.url, "Decrypt", `{"CiphertextBlob": "?"}`), 400, "SerializationException"},
		{"no UTF-8", post(t, s.url, "Encrypt", "{\"EncryptionContext\": {\"a\": \"\xff\"}}"), 400, "SerializationException"},
		{"too long", post(t, s.url, "ListKeys", strings.Repeat(" ", maxBody+1)), 413, "RequestEntityTooLargeException"},
		{"of a web page", with(post(t, s.url, "ListKeys", "{}"), func(r *http.Request) { r.Header.Set("Origin", "https://example.com") }), 400, "AccessDeniedException"},
		{"by a name that points here", with(post(t, s.url, "ListKeys", "{}"), func(r *http.Request) { r.Host = "example.com:4599" }), 400, "AccessDeniedException"},
		{"a refusal of the KMS", post(t, s.url, "DescribeKey", `{"KeyId": "alias/none"}`), 400, "NotFoundException"},
		{"as localhost", with(post(t, s.url, "DescribeKey", `{"KeyId": "alias/none"}`), func(r *http.Request) { r.Host = "localhost:4599" }), 400, "NotFoundException"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := do(t, http.DefaultClient, c.request)
			if got.status != c.status || got.kind != c.kind {
				t.Errorf("%d %s (%s), want %d %s", got.status, got.kind, got.message, c.status, c.kind)
			}
		})
	}
}

// A body and a context with what JSON, HTML and HTTP find special.
func TestAnswersAreAWSs(t *testing.T) {
	s := start(t, Options{KMS: newKeystore(t), Auth: AuthNone})
	created := do(t, http.DefaultClient, post(t, s.url, "CreateKey", `{"Unknown": 1}`))
	var key struct{ KeyMetadata struct{ KeyId, Arn string } }
	if err := json.Unmarshal(created.body, &key); err != nil || created.status != 200 {
		t.Fatalf("%v: %d %s", err, created.status, created.body)
	}
	encrypted := do(t, http.DefaultClient, post(t, s.url, "Encrypt", `{"KeyId": "`+key.KeyMetadata.KeyId+`", "Plaintext": "AP8=", "EncryptionContext": {"<a>": "\u2028"}}`))
	var c struct{ CiphertextBlob, KeyId string }
	if err := json.Unmarshal(encrypted.body, &c); err != nil || c.KeyId != key.KeyMetadata.Arn {
		t.Fatalf("%v: %s", err, encrypted.body)
	}
	decrypted := do(t, http.DefaultClient, post(t, s.url, "Decrypt", `{"CiphertextBlob": "`+c.CiphertextBlob+`", "EncryptionContext": {"<a>": "\u2028"}}`))
	if !strings.Contains(string(decrypted.body), `"Plaintext":"AP8="`) {
		t.Fatalf("%s", decrypted.body)
	}
	for _, body := range []string{`{}`, `{"EncryptionContext": {"<a>": "x"}, "CiphertextBlob": "` + c.CiphertextBlob + `"}`} {
		if got := do(t, http.DefaultClient, post(t, s.url, "Decrypt", body)); got.status != 400 {
			t.Errorf("%s: %d", body, got.status)
		}
	}
	disabled := do(t, http.DefaultClient, post(t, s.url, "DisableKey", `{"KeyId": "`+key.KeyMetadata.Arn+`"}`))
	if disabled.status != 200 || len(disabled.body) != 0 {
		t.Errorf("%d %q, want an empty answer", disabled.status, disabled.body)
	}
}

// failing is a KMS whose calls end with err.
type failing struct {
	KMS
	err error
}

func (f failing) Do(context.Context, local.Caller, local.Input) (any, error) { return nil, f.err }

func TestFailuresOfTheServersSide(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		kind   string
	}{
		{&local.Error{Code: "KMSInternalException", Message: "m"}, 500, "KMSInternalException"},
		{&local.Error{Code: "DisabledException", Message: "m"}, 400, "DisabledException"},
		{errors.Join(errors.New("inner secret path"), kmsprovider.ErrUnavailable), 500, "KMSInternalException"},
		{context.DeadlineExceeded, 500, "DependencyTimeoutException"},
	} {
		s := start(t, Options{KMS: failing{newKeystore(t), c.err}, Auth: AuthNone})
		got := do(t, http.DefaultClient, post(t, s.url, "ListKeys", "{}"))
		if got.status != c.status || got.kind != c.kind {
			t.Errorf("%v: %d %s", c.err, got.status, got.kind)
		}
		if strings.Contains(got.message, "inner") {
			t.Errorf("the cause is told to the caller: %s", got.message)
		}
		s.stop()
		<-s.done
		s.done <- nil
		if c.status == 500 != strings.Contains(s.log.String(), got.header.Get("x-amzn-RequestId")) {
			t.Errorf("%v: log %q", c.err, s.log)
		}
	}
}
