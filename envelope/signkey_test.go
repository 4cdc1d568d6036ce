package envelope

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestBothSignsOfAPointAreRead(t *testing.T) {
	for suite := range suites {
		if !suite.Signed() {
			continue
		}
		seen := make(map[byte]bool)
		for range 64 {
			c := make(kmsprovider.Context)
			key, err := newSigningKey(suite, c)
			if err != nil {
				t.Fatal(err)
			}
			point, _ := base64.StdEncoding.DecodeString(c[publicKeyContext])
			seen[point[0]] = true
			if got, err := verifyKey(suite, c); err != nil || !got.Equal(&key.PublicKey) {
				t.Fatalf("%s: another key, or %v", suite, err)
			}
		}
		if !seen[2] || !seen[3] {
			t.Errorf("%s: signs %v", suite, seen)
		}
	}
}

func TestAKeyOfASignatureIsThereExactlyForSignedSuites(t *testing.T) {
	c := make(kmsprovider.Context)
	if _, err := newSigningKey(SuiteCommitSigned, c); err != nil {
		t.Fatal(err)
	}
	good := c[publicKeyContext]
	point, _ := base64.StdEncoding.DecodeString(good)
	for name, bad := range map[string]string{
		"empty":           "",
		"not base64":      "!" + good[1:],
		"bits at the end": good[:65] + string(good[65]+1) + "==",
		"too short":       base64.StdEncoding.EncodeToString(point[:48]),
		"too long":        base64.StdEncoding.EncodeToString(append(bytes.Clone(point), 0)),
		"not compressed":  base64.StdEncoding.EncodeToString(append([]byte{4}, make([]byte, 96)...)),
		"at infinity":     base64.StdEncoding.EncodeToString([]byte{0}),
		"not on curve":    base64.StdEncoding.EncodeToString(append([]byte{2}, bytes.Repeat([]byte{0xff}, 48)...)),
		"another curve":   base64.StdEncoding.EncodeToString(point[:33]),
	} {
		_, err := decryptionMaterials(t.Context(), &Header{Suite: SuiteCommitSigned, Context: kmsprovider.Context{publicKeyContext: bad}}, DecryptOptions{Keyring: never})
		wantErrors(t, name, err, ErrMalformed)
	}
	for suite := range suites {
		h := &Header{Suite: suite, Context: kmsprovider.Context{publicKeyContext: good}}
		if suite.Signed() {
			h.Context = someContext
		}
		_, err := decryptionMaterials(t.Context(), h, DecryptOptions{Keyring: never, Policy: RequireEncryptAllowDecrypt})
		wantErrors(t, suite.String(), err, ErrMalformed)
		if err != nil && !strings.Contains(err.Error(), "aws-crypto-public-key") {
			t.Errorf("%s: the field is not named: %v", suite, err)
		}
	}
	// Given beside the message it is none.
	_, err := decryptionMaterials(t.Context(), &Header{Suite: SuiteCommitSigned}, DecryptOptions{Keyring: never, Context: c})
	wantErrors(t, "a key given beside", err, ErrContext)
}
