package aws_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"kmsfs/integration/faultproxy"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

func TestFinalErrorsAreAskedForOnceAndMatchTheirSentinel(t *testing.T) {
	p, proxy := behind(t, http.NotFoundHandler(), aws.Options{})
	for _, c := range []struct {
		status int
		code   string
		want   error
		hint   string // part of it
	}{
		{400, "AccessDeniedException", kmsprovider.ErrAccessDenied, "policy"},
		{400, "DisabledException", kmsprovider.ErrKeyDisabled, "aws kms enable-key"},
		{400, "KMSInvalidStateException", kmsprovider.ErrKeyDisabled, "aws kms"},
		{400, "NotFoundException", kmsprovider.ErrKeyNotFound, "region"},
		{400, "IncorrectKeyException", kmsprovider.ErrIncorrectKey, ""},
		{400, "InvalidCiphertextException", kmsprovider.ErrInvalidCiphertext, ""},
		{400, "InvalidKeyUsageException", kmsprovider.ErrInvalidInput, "SYMMETRIC_DEFAULT"},
		{400, "ValidationException", kmsprovider.ErrInvalidInput, ""},
		{400, "InvalidArnException", kmsprovider.ErrInvalidInput, ""},
		{400, "SomethingNewException", kmsprovider.ErrInvalidInput, ""},
		{403, "SomethingNewException", kmsprovider.ErrAccessDenied, ""},
		{400, "ExpiredTokenException", kmsprovider.ErrAccessDenied, "expired"},
		{403, "ExpiredToken", kmsprovider.ErrAccessDenied, "expired"},
		{400, "UnrecognizedClientException", kmsprovider.ErrAccessDenied, "expired"},
		{400, "InvalidSignatureException", kmsprovider.ErrAccessDenied, "clock"},
		{400, "MissingAuthenticationTokenException", kmsprovider.ErrAccessDenied, "AWS_PROFILE"},
		{404, "", kmsprovider.ErrUnavailable, "AWS_ENDPOINT_URL_KMS"}, // no KMS at all
	} {
		proxy.Set(faultproxy.Fault{Status: c.status, Code: c.code})
		_, err := p.Decrypt(t.Context(), keyARN, []byte("wrapped"), nil)
		wantOnly(t, c.code, err, c.want)
		var e *aws.Error
		if !errors.As(err, &e) || c.code != "" && e.Code != c.code || e.Operation != "Decrypt" || e.KeyID != keyARN {
			t.Errorf("%s: %+v", c.code, e)
		} else if !strings.Contains(e.Hint(), c.hint) || c.hint == "" && e.Hint() != "" {
			t.Errorf("%s: hint %q, want one with %q", c.code, e.Hint(), c.hint)
		}
		if counts := proxy.Counts(); counts["Decrypt"] != 1 {
			t.Errorf("%s: asked %d times", c.code, counts["Decrypt"])
		}
	}
}

// wantOnly fails unless err matches want and no other sentinel.
func wantOnly(t *testing.T, what string, err, want error) {
	t.Helper()
	for name, sentinel := range sentinels {
		if errors.Is(err, sentinel) != (sentinel == want) {
			t.Errorf("%s: %v: matches %q: %v", what, err, name, errors.Is(err, sentinel))
		}
	}
}

func TestWhatOthersSayIsShortAndPrintable(t *testing.T) {
	p, _ := behind(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"AccessDeniedException","message":"\u001b[2J\nkmsfs: all is well` + strings.Repeat("ä", 4000) + `"}`))
	}), aws.Options{})
	_, err := p.DescribeKey(t.Context(), keyARN)
	if !errors.Is(err, kmsprovider.ErrAccessDenied) || len(err.Error()) > 1200 ||
		slices.ContainsFunc([]rune(err.Error()), func(r rune) bool { return r < ' ' || r == '\uFFFD' }) {
		t.Errorf("%q", err)
	}
}
