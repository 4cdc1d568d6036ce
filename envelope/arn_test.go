package envelope

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// TestAMultiRegionKeyOpensWhatItsReplicasWrapped asks with the key that is there, never with the one of the message.
func TestAMultiRegionKeyOpensWhatItsReplicasWrapped(t *testing.T) {
	const mrk = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234"
	for _, c := range []struct {
		name, have, wrapped string
		opens               bool
	}{
		{"the same key", mrk, mrk, true},
		{"a replica", "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234", mrk, true},
		{"another multi-Region key", "arn:aws:kms:eu-west-1:111122223333:key/mrk-12345", mrk, false},
		{"another account", "arn:aws:kms:eu-west-1:444455556666:key/mrk-1234", mrk, false},
		{"another partition", "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1234", mrk, false},
		{"the same key of one region", "arn:aws:kms:us-east-1:111122223333:key/1234", "arn:aws:kms:us-east-1:111122223333:key/1234", true},
		{"a key of one region elsewhere", "arn:aws:kms:eu-west-1:111122223333:key/1234", "arn:aws:kms:us-east-1:111122223333:key/1234", false},
		{"an alias that looks like one", "arn:aws:kms:eu-west-1:111122223333:key/mrk-1234", "arn:aws:kms:us-east-1:111122223333:alias/mrk-1234", false},
		{"letters of another case", mrk, strings.ToUpper(mrk[:3]) + mrk[3:], false},
		{"upper-case prefix", "arn:aws:kms:eu-west-1:111122223333:key/MRK-1", "arn:aws:kms:us-east-1:111122223333:key/MRK-1", false},
	} {
		var asked []string
		want := bytes.Repeat([]byte{5}, 32)
		p := answers{decrypt: func(_ context.Context, keyID string) ([]byte, error) {
			asked = append(asked, keyID)
			return bytes.Clone(want), nil
		}}
		ring, err := NewKMSKeyring(p.open, []kmsprovider.KeyURI{{Provider: "aws", KeyID: c.have}})
		if err != nil {
			t.Fatal(err)
		}
		dataKey, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{kmsProvider, []byte(c.wrapped), []byte("x")})
		if !c.opens {
			wantErrors(t, c.name, err, ErrNoKey)
			if len(asked) > 0 {
				t.Errorf("%s: asked %s", c.name, asked)
			}
			continue
		}
		if err != nil || !bytes.Equal(dataKey, want) || len(asked) != 1 || asked[0] != c.have {
			t.Errorf("%s: error %v, asked %s, want %s", c.name, err, asked, c.have)
		}
	}
}

func TestAKeyARNIsWhatWasParsed(t *testing.T) {
	for _, s := range []string{
		"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", "arn:aws:kms:local:111122223333:key/a/b",
		"arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1",
	} {
		a, err := parseKeyARN(s)
		if err != nil || a.String() != s {
			t.Errorf("%s: %s, error %v", s, a, err)
		}
	}
	for _, s := range badARNs {
		if a, err := parseKeyARN(s); err == nil {
			t.Errorf("%q: read as %s", s, a)
		}
	}
}

// badARNs name no key of a KMS.
var badARNs = []string{
	"", "1234", "alias/a", "local:alias/a", "arn:aws:kms:us-east-1:111122223333:alias/a", "arn:aws:kms:us-east-1:111122223333:key/",
	"arn:aws:kms:us-east-1:111122223333:key", "arn:aws:kms:us-east-1:111122223333:grant/a", "arn:aws:s3:us-east-1:111122223333:key/a",
	"arn:aws:kms::111122223333:key/a", "arn:aws:kms:us-east-1::key/a", "arn::kms:us-east-1:111122223333:key/a", "arn:aws:kms:us-east-1:key/a",
	"arn:aws:kms:us-east-1:111122223333:key/a:b", "arn:aws:kms:us-east-1:111122223333:key/\xff", "arn:aws:kms:us-east-1:111122223333:key/a ",
	"arn:aws:kms:us-east-1:111122223333:key/" + strings.Repeat("a", 3000),
}
