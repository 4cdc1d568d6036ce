package aws_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

const (
	keyARN     = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	otherARN   = "arn:aws:kms:eu-central-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab"
	foreignARN = "arn:aws:kms:eu-central-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	aliasARN   = "arn:aws:kms:eu-central-1:111122223333:alias/app"
	primaryARN = "arn:aws:kms:eu-central-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
	replicaARN = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
)

// answer is what a fake KMS says: JSON, or as it is if it is a string.
type answer map[string]any

// secret is the data key that the fake hands out.
var secret = []byte("0123456789abcdef0123456789abcdef")

// good is the answer of a KMS that does what it should.
func good(keyID string) answer {
	return answer{"KeyId": keyID, "SourceKeyId": keyID, "CiphertextBlob": []byte("wrapped"), "Plaintext": secret,
		"KeyMetadata": answer{"KeyId": "x", "Arn": keyID, "KeyState": "Enabled", "Origin": "AWS_KMS", "KeyManager": "AWS", "CreationDate": 1.5e9, "Description": "d"}}
}

// with is the answer with other members.
func (a answer) with(changes answer) answer {
	out := maps.Clone(a)
	maps.Copy(out, changes)
	return out
}

// fake is a KMS whose every answer is a function of the region asked, and of nothing else.
func fake(say func(region string) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/kms/aws4_request, …
		scope := strings.Split(r.Header.Get("Authorization"), "/")
		region := ""
		if len(scope) > 2 {
			region = scope[2]
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(say(region))
	})
}

// behind makes a provider that reaches a KMS through a proxy.
func behind(t *testing.T, next http.Handler, o aws.Options) (*aws.Provider, *faultproxy.Proxy) {
	t.Helper()
	proxy := faultproxy.New(t, next)
	return connect(t, &emulator.Server{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "example"}, proxy.URL, o), proxy
}

// operations calls each operation once, with keyID in each place of a key.
func operations(t *testing.T, p *aws.Provider, keyID string) map[string]error {
	_, _, generated := p.GenerateDataKey(t.Context(), keyID, nil)
	_, decrypted := p.Decrypt(t.Context(), keyID, []byte("wrapped"), nil)
	_, encrypted := p.Encrypt(t.Context(), keyID, secret, nil)
	_, reEncrypted := p.ReEncrypt(t.Context(), []byte("wrapped"), keyID, nil, keyID, nil)
	_, described := p.DescribeKey(t.Context(), keyID)
	return map[string]error{
		"GenerateDataKey": generated, "Decrypt": decrypted, "Encrypt": encrypted, "ReEncrypt": reEncrypted, "DescribeKey": described,
	}
}

var sentinels = map[string]error{
	"denied": kmsprovider.ErrAccessDenied, "disabled": kmsprovider.ErrKeyDisabled, "not found": kmsprovider.ErrKeyNotFound,
	"incorrect": kmsprovider.ErrIncorrectKey, "ciphertext": kmsprovider.ErrInvalidCiphertext, "throttled": kmsprovider.ErrThrottled,
	"unavailable": kmsprovider.ErrUnavailable, "input": kmsprovider.ErrInvalidInput,
}
