package kmsserver

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/kmsprovider/local"
)

// FuzzRequest is about what comes over the KMS's protocol: the operation, its
// JSON, and headers.
func FuzzRequest(f *testing.F) {
	k, err := local.Create(context.Background(), local.Options{
		Path:       filepath.Join(f.TempDir(), "keystore.json"),
		Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { k.Close() })
	if _, err := k.EnsureDefaultKey(context.Background()); err != nil {
		f.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	open := New(Options{KMS: k, Auth: AuthNone, Log: quiet})
	signed := New(Options{KMS: k, Auth: AuthSigV4, Log: quiet})
	ask := func(s *Server, operation, authorization string, body string) *http.Response {
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/", strings.NewReader(body))
		r.Header["X-Amz-Target"] = []string{target + operation}
		r.Header["Authorization"] = []string{authorization}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Result()
	}
	good := 0
	for _, seed := range [][2]string{
		{"ListKeys", `{"Limit":5}`}, {"DescribeKey", `{"KeyId":"alias/kmsfs"}`},
		{"GenerateDataKey", `{"KeyId":"alias/kmsfs","KeySpec":"AES_256","EncryptionContext":{"a":"b"}}`},
		{"Encrypt", `{"KeyId":"alias/kmsfs","Plaintext":"AAAA"}`}, {"Decrypt", `{"CiphertextBlob":"AAAA"}`},
		{"GetKeyPolicy", `{"KeyId":"alias/kmsfs","PolicyName":"default"}`}, {"CreateGrant", `{"KeyId":5}`}, {"Nothing", `{`},
	} {
		if ask(open, seed[0], "", seed[1]).StatusCode == http.StatusOK {
			good++
		}
		f.Add(seed[0], "AWS4-HMAC-SHA256 Credential=A/20260101/r/kms/aws4_request, SignedHeaders=host, Signature=00", seed[1])
	}
	if good != 4 {
		f.Fatalf("%d seeds succeed", good)
	}
	f.Fuzz(func(t *testing.T, operation, authorization, body string) {
		if operation == "CreateKey" { // the keystore would grow all the time
			return
		}
		for _, s := range []*Server{open, signed} {
			r := ask(s, operation, authorization, body)
			b, _ := io.ReadAll(r.Body)
			var answer map[string]any
			if len(b) > 0 && json.Unmarshal(b, &answer) != nil {
				t.Fatalf("%s %s: answered %q", operation, body, b)
			}
			switch {
			case s == signed && r.StatusCode < 400:
				t.Fatalf("%s was performed without a signature", operation)
			case r.StatusCode >= 500:
				t.Fatalf("%s %s: %d %s", operation, body, r.StatusCode, b)
			case r.StatusCode >= 400 && answer["__type"] == nil:
				t.Fatalf("%s %s: an error of no type: %s", operation, body, b)
			}
		}
	})
}
