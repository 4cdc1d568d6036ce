package envelope

import (
	"context"
	"errors"
	"fmt"

	"kmsfs/kmsprovider"
)

// Discovery limits which keys a discovery keyring asks for; empty fields limit nothing.
type Discovery struct {
	Account   string // 12 digits
	Partition string // "aws", "aws-cn", …
	// Region has the keys of one region asked alone, multi-Region keys there in place of their replicas elsewhere.
	Region string
}

// lets tells whether a key may be asked.
func (d Discovery) lets(a keyARN) bool {
	return (d.Account == "" || a.account == d.Account) && (d.Partition == "" || a.partition == d.Partition) &&
		(d.Region == "" || a.region == d.Region)
}

// NewDiscoveryKeyring opens with whatever KMS key a message names, if filter lets it, in the order of the message. It
// does not encrypt. The keys are asked for as those of the provider aws, by their ARNs; open may give another provider
// that knows them by these. Specification: aws-kms-discovery-keyring.md and aws-kms-mrk-discovery-keyring.md.
//
// Whoever wrote a message says in it which keys are asked, how many, and in which regions: a filter, and a cap on the
// wrapped keys, keep that within bounds.
func NewDiscoveryKeyring(open OpenProvider, filter Discovery) Keyring {
	return &discoveryKeyring{open, filter}
}

type discoveryKeyring struct {
	open   OpenProvider
	filter Discovery
}

func (d *discoveryKeyring) OnEncrypt(context.Context, *EncryptionMaterials) error {
	return fmt.Errorf("wrap data key: discovery finds the key that a message names, and a new one names none: %w", kmsprovider.ErrInvalidInput)
}

func (d *discoveryKeyring) OnDecrypt(ctx context.Context, m *DecryptionMaterials, keys []EncryptedDataKey) error {
	return m.openFirst(ctx, keys, func(w EncryptedDataKey) ([]byte, error) {
		if w.Provider != kmsProvider {
			return nil, nil
		}
		arn, err := parseKeyARN(string(w.Info))
		if err != nil { // not with its sentinel: the input is the message's, not the user's
			return nil, errors.New(err.Error())
		}
		if d.filter.Region != "" {
			arn = arn.in(d.filter.Region)
		}
		if !d.filter.lets(arn) {
			return nil, nil
		}
		return decryptWith(ctx, d.open, kmsprovider.KeyURI{Provider: "aws", KeyID: arn.String()}, arn, m, w)
	})
}
