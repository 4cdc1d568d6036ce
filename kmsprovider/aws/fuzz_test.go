package aws

import (
	"errors"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func FuzzParseKey(f *testing.F) {
	good := 0
	for _, seed := range []string{
		"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/a/b",
		"arn:aws:kms:a.b/:111122223333:key/x", "alias/a", "",
	} {
		if _, err := parseKey(seed); err == nil {
			good++
		}
		f.Add(seed)
	}
	if good != 2 {
		f.Fatalf("%d seeds are ARNs", good)
	}
	f.Fuzz(func(t *testing.T, arn string) {
		k, err := parseKey(arn)
		if err != nil {
			if !errors.Is(err, kmsprovider.ErrInvalidInput) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if k.arn != arn || !strings.HasPrefix(arn, k.scope) || strings.ContainsAny(k.region, "./:@?#%\\ ") {
			t.Fatalf("%+v from %q", k, arn)
		}
	})
}
