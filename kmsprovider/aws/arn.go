package aws

import (
	"fmt"
	"strings"

	"kmsfs/kmsprovider"
)

// key is a key or an alias, by its ARN.
type key struct {
	arn    string
	scope  string // arn:PARTITION:kms:REGION:ACCOUNT:
	region string
	alias  bool
}

// parseKey reads an ARN. Bare IDs and aliases are refused: they name another
// key in each region and account.
func parseKey(arn string) (key, error) {
	uri, err := kmsprovider.ParseKeyURI(arn)
	if err != nil {
		return key{}, err
	}
	if uri.Provider != providerName {
		return key{}, fmt.Errorf("parse key %q: it is not the ARN of an AWS key or alias: %w", arn, kmsprovider.ErrInvalidInput)
	}
	p := strings.SplitN(arn, ":", 6)
	// It becomes part of a host name.
	if strings.Trim(p[3], "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return key{}, fmt.Errorf("parse key %q: %q is no region: %w", arn, p[3], kmsprovider.ErrInvalidInput)
	}
	return key{
		arn: arn, scope: strings.Join(p[:5], ":") + ":", region: p[3],
		alias: strings.HasPrefix(p[5], "alias/"),
	}, nil
}

// is tells whether the KeyId of an answer is this key. What key an alias names
// only the KMS knows: any key of the same region and account may be it.
func (k key) is(answer string) bool {
	if !k.alias {
		return answer == k.arn
	}
	id, ok := strings.CutPrefix(answer, k.scope+"key/")
	return ok && id != ""
}
