package local

// Caller is who calls an operation: what policies decide on and what the audit
// log tells.
type Caller struct {
	ARN       string // arn:aws:iam::ACCOUNT:root, or …:user/NAME
	SourceIP  string // empty: a call within this process
	UserAgent string
	RequestID string // empty: Do draws one

	AccessKeyID string // that the request was signed with, if it was
}

// Root is the root of the keystore's account: whoever has the passphrase.
func (k *Keystore) Root() Caller {
	return Caller{ARN: rootARN(k.account), UserAgent: "kmsfs"}
}

func rootARN(account string) string { return "arn:aws:iam::" + account + ":root" }

// Account is the keystore's account: 12 digits.
func (k *Keystore) Account() string { return k.account }
