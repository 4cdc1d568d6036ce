package local

import (
	"context"
)

// Caller is who calls an operation: what policies decide on and what the audit
// log tells.
type Caller struct {
	ARN       string // arn:aws:iam::ACCOUNT:root, or …:user/NAME
	SourceIP  string // empty: a call within this process
	UserAgent string
	RequestID string // empty: Do draws one
}

// Root is the root of the keystore's account: whoever has the passphrase.
func (k *Keystore) Root() Caller {
	return Caller{ARN: rootARN(k.account), UserAgent: "kmsfs"}
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// Principal returns the caller whose access key ID that is, and a copy of its
// secret access key, which the caller wipes. An unknown ID is
// UnrecognizedClientException.
func (k *Keystore) Principal(ctx context.Context, accessKeyID string) (c Caller, secret []byte, err error) {
	if err := ctx.Err(); err != nil {
		return Caller{}, nil, err
	}
	return Caller{}, nil, refuse("UnrecognizedClientException", "The security token included in the request is invalid.").of(errUnknownPrincipal)
}
