package envelope

import (
	"fmt"
	"strings"

	"kmsfs/kmsprovider"
)

// keyARN is the ARN of a KMS key, arn:PARTITION:kms:REGION:ACCOUNT:key/ID.
type keyARN struct{ partition, region, account, id string }

// parseKeyARN refuses all that names no key: aliases and other resources, and what is malformed. Errors are
// kmsprovider.ErrInvalidInput, and quote s.
func parseKeyARN(s string) (keyARN, error) {
	u, err := kmsprovider.ParseKeyURI(s)
	if err != nil {
		return keyARN{}, err
	}
	if u.Provider != "aws" {
		return keyARN{}, fmt.Errorf("parse key %q: it is not the ARN of a KMS key: %w", s, kmsprovider.ErrInvalidInput)
	}
	p := strings.SplitN(s, ":", 6)
	id, ok := strings.CutPrefix(p[5], "key/")
	if !ok {
		return keyARN{}, fmt.Errorf("parse key %q: it is the ARN of an alias, not of a key: %w", s, kmsprovider.ErrInvalidInput)
	}
	return keyARN{partition: p[1], region: p[3], account: p[4], id: id}, nil
}

// String is what parseKeyARN takes.
func (a keyARN) String() string {
	return "arn:" + a.partition + ":kms:" + a.region + ":" + a.account + ":key/" + a.id
}

// multiRegion tells whether the key can have replicas in other regions: the same key material under the same ID.
func (a keyARN) multiRegion() bool { return strings.HasPrefix(a.id, "mrk-") }

// in is the replica of a multi-Region key in region; other keys are in one region alone.
func (a keyARN) in(region string) keyARN {
	if a.multiRegion() {
		a.region = region
	}
	return a
}

// opens tells whether a opens what wrapped wrapped: it is the same key, or a replica of it. Specification:
// aws-kms-mrk-match-for-decrypt.md.
func (a keyARN) opens(wrapped keyARN) bool { return a == wrapped.in(a.region) }
