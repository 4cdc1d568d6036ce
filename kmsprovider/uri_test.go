package kmsprovider_test

import (
	"errors"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

const (
	someKeyARN   = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	someAliasARN = "arn:aws-us-gov:kms:us-gov-west-1:123456789012:alias/team/app"
)

func goodKeyURIs() map[string]kmsprovider.KeyURI {
	return map[string]kmsprovider.KeyURI{
		"local:alias/kmsfs":                                {Provider: "local", KeyID: "alias/kmsfs"},
		"local:1234abcd-12ab-34cd-56ef-1234567890ab":       {Provider: "local", KeyID: "1234abcd-12ab-34cd-56ef-1234567890ab"},
		"local:arn:aws:kms:local:123456789012:alias/kmsfs": {Provider: "local", KeyID: "arn:aws:kms:local:123456789012:alias/kmsfs"},
		someKeyARN:   {Provider: "aws", KeyID: someKeyARN},
		someAliasARN: {Provider: "aws", KeyID: someAliasARN},
		"arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234":                {Provider: "aws", KeyID: "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234"},
		"age:age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p": {Provider: "age", KeyID: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"},
		"vault:transit/keys/app": {Provider: "vault", KeyID: "transit/keys/app"},
	}
}

func TestKeyURIsNameAProviderAndAKey(t *testing.T) {
	for s, want := range goodKeyURIs() {
		got, err := kmsprovider.ParseKeyURI(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if got.String() != s {
			t.Errorf("%s is written %s", s, got)
		}
	}
}

func TestMalformedKeyURIsAreRefusedByName(t *testing.T) {
	for _, s := range []string{
		"", ":", "local", "local:", "local:alias/", "age:", "vault:", "alias/kmsfs", "1234abcd-12ab-34cd-56ef-1234567890ab",
		"aws:alias/x", "LOCAL:alias/x", " local:alias/x", "local:alias/x ", "local:alias/x\n", "local:alias/é", "local:\x00",
		"arn:", "arn:aws:kms", "arn:aws:s3:::bucket", "arn:aws:kms::123456789012:key/x", "arn:aws:kms:r:12345678901:key/x",
		"arn:aws:kms:r:12345678901x:key/x", "arn:aws:kms:r:123456789012:key/", "arn:aws:kms:r:123456789012:key", "arn:aws:kms:r:123456789012:x/y",
		"arn:aws:kms:r:123456789012:key/x:y", "arn:azure:kms:r:123456789012:key/x", "arn:awsx:kms:r:123456789012:key/x",
		"local:" + strings.Repeat("x", 2048),
	} {
		u, err := kmsprovider.ParseKeyURI(s)
		if !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%q: %+v, %v", s, u, err)
			continue
		}
		if name := strings.Trim(s, " \n\x00é"); len(name) < 100 && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: the error does not name it: %v", s, err)
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%q: an error of %d bytes", s, len(err.Error()))
		}
	}
}

func FuzzParseKeyURI(f *testing.F) {
	seeds := goodKeyURIs()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for s := range seeds {
		if _, err := kmsprovider.ParseKeyURI(s); err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	f.Add("arn:aws:kms:::")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := kmsprovider.ParseKeyURI(s)
		if err != nil {
			if !errors.Is(err, kmsprovider.ErrInvalidInput) || u != (kmsprovider.KeyURI{}) {
				t.Fatalf("%+v, %v", u, err)
			}
			return
		}
		if u.Provider == "" || u.KeyID == "" || u.String() != s {
			t.Fatalf("%q becomes %+v, written %q", s, u, u)
		}
	})
}
