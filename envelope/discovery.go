package envelope

import (
	"context"

	"kmsfs/kmsprovider"
)

// Discovery limits which keys a discovery keyring asks for; empty fields limit nothing.
type Discovery struct {
	Account   string // 12 digits
	Partition string // "aws", "aws-cn", …
}

// NewDiscoveryKeyring opens with whatever KMS key a message names, if filter lets it. It does not encrypt.
func NewDiscoveryKeyring(open func(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error), filter Discovery) Keyring {
	return nil
}
