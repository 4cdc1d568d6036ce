package envelope

import (
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestEachPolicyLetsItsSuitesThrough(t *testing.T) {
	commits := map[Suite]bool{SuiteCommit: true, SuiteCommitSigned: true}
	for _, c := range []struct {
		name     string
		policy   CommitmentPolicy
		encrypts bool // with the suites that commit; never with others
		reads    bool // those that do not commit
	}{
		{"require-encrypt-require-decrypt", RequireEncryptRequireDecrypt, true, false},
		{"require-encrypt-allow-decrypt", RequireEncryptAllowDecrypt, true, true},
		{"forbid-encrypt-allow-decrypt", ForbidEncryptAllowDecrypt, false, true},
	} {
		p, err := ParseCommitmentPolicy(c.name)
		if err != nil || p != c.policy || p.String() != c.name {
			t.Errorf("%s is %v (%v)", c.name, p, err)
		}
		for suite := range suites {
			for what, got := range map[string]struct {
				err  error
				want bool
			}{
				"encrypt": {p.checkEncrypt(suite), c.encrypts && commits[suite]},
				"decrypt": {p.checkDecrypt(suite), c.reads || commits[suite]},
			} {
				if got.want {
					if got.err != nil {
						t.Errorf("%s, %s, %s: %v", c.name, what, suite, got.err)
					}
					continue
				}
				wantErrors(t, c.name+", "+what+", "+suite.String(), got.err, ErrCommitmentPolicy)
				if got.err != nil && !strings.Contains(got.err.Error(), c.name) {
					t.Errorf("the policy is not named: %v", got.err)
				}
			}
		}
	}
	if RequireEncryptRequireDecrypt != 0 {
		t.Error("the strictest policy is not the default")
	}
	for _, p := range []CommitmentPolicy{-1, 3} {
		wantErrors(t, "an unknown policy", p.checkEncrypt(SuiteCommit), ErrCommitmentPolicy)
		wantErrors(t, "an unknown policy", p.checkDecrypt(SuiteAES256), ErrCommitmentPolicy)
	}
	for _, s := range []string{"", "require", "REQUIRE_ENCRYPT_REQUIRE_DECRYPT", "require-encrypt-require-decrypt "} {
		_, err := ParseCommitmentPolicy(s)
		wantErrors(t, s, err, kmsprovider.ErrInvalidInput)
	}
}
