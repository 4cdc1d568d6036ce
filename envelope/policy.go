package envelope

import (
	"fmt"

	"kmsfs/kmsprovider"
)

// CommitmentPolicy says which suites are used: those that commit to their key, or the others too. Specification:
// commitment-policy.md.
type CommitmentPolicy int

const (
	// RequireEncryptRequireDecrypt is the default: what does not commit to its key is refused.
	RequireEncryptRequireDecrypt CommitmentPolicy = iota
	// RequireEncryptAllowDecrypt reads every suite.
	RequireEncryptAllowDecrypt
	// ForbidEncryptAllowDecrypt reads every suite and encrypts with none: the suites that it asks for are not written
	// here.
	ForbidEncryptAllowDecrypt
)

var policyNames = [...]string{"require-encrypt-require-decrypt", "require-encrypt-allow-decrypt", "forbid-encrypt-allow-decrypt"}

// ParseCommitmentPolicy takes the name that the official CLI has for a policy. Else kmsprovider.ErrInvalidInput.
func ParseCommitmentPolicy(s string) (CommitmentPolicy, error) {
	for i, name := range policyNames {
		if s == name {
			return CommitmentPolicy(i), nil
		}
	}
	return 0, fmt.Errorf("parse commitment policy: %q is none, there are %s, %s and %s: %w",
		s, policyNames[0], policyNames[1], policyNames[2], kmsprovider.ErrInvalidInput)
}

// String is what ParseCommitmentPolicy takes.
func (p CommitmentPolicy) String() string {
	if p < 0 || int(p) >= len(policyNames) {
		return fmt.Sprintf("unknown commitment policy %d", int(p))
	}
	return policyNames[p]
}

// checkEncrypt lets the suites through that messages are written with. Errors: ErrCommitmentPolicy.
func (p CommitmentPolicy) checkEncrypt(s Suite) error {
	switch {
	case p != RequireEncryptRequireDecrypt && p != RequireEncryptAllowDecrypt:
		return fmt.Errorf("%w: %s asks for a suite without commitment, which is read here but not written", ErrCommitmentPolicy, p)
	case !s.Valid() || !s.Commits():
		return fmt.Errorf("%w: %s takes a suite with commitment, and %s has none", ErrCommitmentPolicy, p, s)
	}
	return nil
}

// checkDecrypt lets the suites through that are read. Errors: ErrCommitmentPolicy.
func (p CommitmentPolicy) checkDecrypt(s Suite) error {
	if s.Commits() || p == RequireEncryptAllowDecrypt || p == ForbidEncryptAllowDecrypt {
		return nil
	}
	return fmt.Errorf("%w: the message's suite %s does not commit to its key, and the policy is %s", ErrCommitmentPolicy, s, p)
}
