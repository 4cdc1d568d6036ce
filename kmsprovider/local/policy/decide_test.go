package policy

import (
	"fmt"
	"strings"
	"testing"
)

const (
	account  = "111122223333"
	rootUser = "arn:aws:iam::" + account + ":root"
	alice    = "arn:aws:iam::" + account + ":user/alice"
	bob      = "arn:aws:iam::" + account + ":user/team/bob"
	mallory  = "arn:aws:iam::444455556666:user/mallory"
	keyARN   = "arn:aws:kms:local:" + account + ":key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

func request(principal, action string, context map[string][]string) Request {
	return Request{Principal: principal, Account: strings.Split(principal, ":")[4], Action: action, Resource: keyARN, Context: context}
}

func mustParse(t testing.TB, document string, kind Kind) *Policy {
	t.Helper()
	p, err := Parse([]byte(document), kind)
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return p
}

// keyPolicy is a key policy of the statements.
func keyPolicy(statements ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(statements, ", ") + `]}`
}

func statementOf(effect, principal, action, rest string) string {
	return fmt.Sprintf(`{"Effect": %q, "Principal": %s, "Action": %q, "Resource": "*"%s}`, effect, principal, action, rest)
}

func aws(arn string) string { return fmt.Sprintf(`{"AWS": %q}`, arn) }

// The semantics are those of the IAM JSON policy elements reference and of the
// KMS developer guide's "Key policies in AWS KMS".
func TestPrincipalsActionsAndEffects(t *testing.T) {
	everything := statementOf("Allow", `"*"`, "kms:*", "")
	for _, c := range []struct {
		name, document string
		principal      string
		action         string
		want           Decision
		delegates      bool
	}{
		{"the default policy, the root", string(Default(account)), rootUser, "kms:Decrypt", Allow, true},
		{"the default policy, a user", string(Default(account)), alice, "kms:Decrypt", None, true},
		{"the default policy, another account", string(Default(account)), mallory, "kms:Decrypt", None, true},
		{"the account by its ID, the root", keyPolicy(statementOf("Allow", aws(account), "kms:*", "")), rootUser, "kms:Decrypt", Allow, true},
		{"the account by its ID, a user", keyPolicy(statementOf("Allow", aws(account), "kms:*", "")), alice, "kms:Decrypt", None, true},
		{"the account, another action", keyPolicy(statementOf("Allow", aws(account), "kms:Encrypt", "")), alice, "kms:Decrypt", None, false},
		{"everybody", keyPolicy(everything), mallory, "kms:Decrypt", Allow, false},
		{"everybody of type AWS", keyPolicy(statementOf("Allow", aws("*"), "kms:*", "")), mallory, "kms:Decrypt", Allow, false},
		{"a user", keyPolicy(statementOf("Allow", aws(alice), "kms:*", "")), alice, "kms:Decrypt", Allow, false},
		{"another user", keyPolicy(statementOf("Allow", aws(alice), "kms:*", "")), bob, "kms:Decrypt", None, false},
		{"a user is not the root", keyPolicy(statementOf("Allow", aws(alice), "kms:*", "")), rootUser, "kms:Decrypt", None, false},
		{"one of a list", keyPolicy(statementOf("Allow", `{"AWS": ["`+bob+`", "`+alice+`"]}`, "kms:*", "")), alice, "kms:Decrypt", Allow, false},
		{"a role", keyPolicy(statementOf("Allow", aws("arn:aws:iam::111122223333:role/alice"), "kms:*", "")), alice, "kms:Decrypt", None, false},
		{"a service", keyPolicy(statementOf("Allow", `{"Service": "logs.amazonaws.com"}`, "kms:*", "")), alice, "kms:Decrypt", None, false},
		{"no Version", `{"Statement": ` + everything + `}`, alice, "kms:Decrypt", Allow, false},
		{"a single statement", `{"Version": "2008-10-17", "Id": "x", "Statement": ` + everything + `}`, alice, "kms:Decrypt", Allow, false},
		{"deny wins, written last", keyPolicy(everything, statementOf("Deny", aws(alice), "kms:Decrypt", "")), alice, "kms:Decrypt", Deny, false},
		{"deny wins, written first", keyPolicy(statementOf("Deny", aws(alice), "kms:Decrypt", ""), everything), alice, "kms:Decrypt", Deny, false},
		{"deny of another action", keyPolicy(everything, statementOf("Deny", aws(alice), "kms:Decrypt", "")), alice, "kms:Encrypt", Allow, false},
		{"deny of another user", keyPolicy(everything, statementOf("Deny", aws(alice), "kms:Decrypt", "")), bob, "kms:Decrypt", Allow, false},
		{"deny of the account, the root", keyPolicy(everything, statementOf("Deny", aws(account), "kms:*", "")), rootUser, "kms:Decrypt", Deny, false},
		{"deny of the account, a user", keyPolicy(everything, statementOf("Deny", aws(rootUser), "kms:*", "")), alice, "kms:Decrypt", Deny, false},
		{"deny of the account, another account", keyPolicy(everything, statementOf("Deny", aws(rootUser), "kms:*", "")), mallory, "kms:Decrypt", Allow, false},
		{"deny of everybody, the root", keyPolicy(everything, statementOf("Deny", `"*"`, "kms:*", "")), rootUser, "kms:Decrypt", Deny, false},
		{"all but one, another", keyPolicy(everything, `{"Effect": "Deny", "NotPrincipal": {"AWS": ["`+alice+`", "`+account+`"]}, "Action": "kms:*", "Resource": "*"}`), bob, "kms:Decrypt", Deny, false},
		{"all but one, that one", keyPolicy(everything, `{"Effect": "Deny", "NotPrincipal": {"AWS": ["`+alice+`", "`+account+`"]}, "Action": "kms:*", "Resource": "*"}`), alice, "kms:Decrypt", Allow, false},
		{"all but one, without their account", keyPolicy(everything, `{"Effect": "Deny", "NotPrincipal": {"AWS": "`+alice+`"}, "Action": "kms:*", "Resource": "*"}`), alice, "kms:Decrypt", Deny, false},
		{"all but the account, the root", keyPolicy(everything, `{"Effect": "Deny", "NotPrincipal": {"AWS": "`+account+`"}, "Action": "kms:*", "Resource": "*"}`), rootUser, "kms:Decrypt", Allow, false},
		{"case of an action", keyPolicy(statementOf("Allow", `"*"`, "KMS:dEcrypt", "")), alice, "kms:Decrypt", Allow, false},
		{"* in an action", keyPolicy(statementOf("Allow", `"*"`, "kms:GenerateDataKey*", "")), alice, "kms:GenerateDataKeyWithoutPlaintext", Allow, false},
		{"* that matches nothing", keyPolicy(statementOf("Allow", `"*"`, "kms:GenerateDataKey*", "")), alice, "kms:GenerateDataKey", Allow, false},
		{"* in the middle", keyPolicy(statementOf("Allow", `"*"`, "kms:*Key", "")), alice, "kms:DescribeKey", Allow, false},
		{"* in the middle, no match", keyPolicy(statementOf("Allow", `"*"`, "kms:*Key", "")), alice, "kms:ListKeys", None, false},
		{"? in an action", keyPolicy(statementOf("Allow", `"*"`, "kms:?ncrypt", "")), alice, "kms:Encrypt", Allow, false},
		{"? is not nothing", keyPolicy(statementOf("Allow", `"*"`, "kms:Encrypt?", "")), alice, "kms:Encrypt", None, false},
		{"every action", keyPolicy(statementOf("Allow", `"*"`, "*", "")), alice, "kms:Encrypt", Allow, false},
		{"another service's action", keyPolicy(statementOf("Allow", `"*"`, "s3:*", "")), alice, "kms:Encrypt", None, false},
		{"NotAction, that one", keyPolicy(`{"Effect": "Allow", "Principal": "*", "NotAction": ["kms:Decrypt", "kms:Re*"], "Resource": "*"}`), alice, "kms:Decrypt", None, false},
		{"NotAction, another", keyPolicy(`{"Effect": "Allow", "Principal": "*", "NotAction": ["kms:Decrypt", "kms:Re*"], "Resource": "*"}`), alice, "kms:Encrypt", Allow, false},
		{"administrators manage", string(WithAdministratorsAndUsers(account, []string{"alice"}, []string{bob})), alice, "kms:ScheduleKeyDeletion", Allow, true},
		{"administrators do not use", string(WithAdministratorsAndUsers(account, []string{"alice"}, []string{bob})), alice, "kms:Decrypt", None, true},
		{"users use", string(WithAdministratorsAndUsers(account, []string{"alice"}, []string{bob})), bob, "kms:GenerateDataKey", Allow, true},
		{"users do not manage", string(WithAdministratorsAndUsers(account, []string{"alice"}, []string{bob})), bob, "kms:DisableKey", None, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, c.document, KeyPolicy)
			r := request(c.principal, c.action, nil)
			if got := p.Decide(r); got != c.want {
				t.Errorf("decides %v, want %v", got, c.want)
			}
			if got := p.Delegates(account, r); got != c.delegates {
				t.Errorf("delegates: %v, want %v", got, c.delegates)
			}
			if p.Delegates("999999999999", r) {
				t.Error("delegates to an account that it does not name")
			}
		})
	}
}

func TestResources(t *testing.T) {
	for _, c := range []struct {
		element, value string
		want           bool
	}{
		{"Resource", "*", true},
		{"Resource", keyARN, true},
		{"Resource", keyARN + "0", false},
		{"Resource", "arn:aws:kms:local:111122223333:key/*", true},
		{"Resource", "arn:aws:kms:local:111122223333:key/1234abcd-????-34cd-*", true},
		{"Resource", "arn:aws:kms:local:111122223333:alias/*", false},
		{"Resource", "arn:aws:kms:*:111122223333:key/*", true},
		{"Resource", "arn:aws:kms:lo*l:111122223333:key/*", true},
		{"Resource", "arn:aws:kms:*:444455556666:key/*", false},
		{"Resource", "arn:aws:kms:*", true},               // a final * goes beyond the colon
		{"Resource", "arn:aws:kms:*:key/1234*", true},     // so does one at the end of a part
		{"Resource", "arn:aws:kms:lo*1:key/1234*", false}, // one inside a part does not
		{"Resource", "arn:aws:kms:LOCAL:111122223333:key/*", false},
		{"Resource", "arn:aws:s3:::bucket/*", false},
		{"NotResource", "arn:aws:kms:local:111122223333:key/*", false},
		{"NotResource", "arn:aws:kms:local:111122223333:alias/*", true},
	} {
		p := mustParse(t, fmt.Sprintf(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", %q: [%q]}}`, c.element, c.value), IdentityPolicy)
		if got := p.Decide(request(alice, "kms:Decrypt", nil)) == Allow; got != c.want {
			t.Errorf("%s %s: %v, want %v", c.element, c.value, got, c.want)
		}
	}
}

func TestPolicyVariables(t *testing.T) {
	for _, c := range []struct {
		name, version, condition string
		context                  map[string][]string
		principal                string
		want                     bool
	}{
		{"the user's name", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"alice"}}, alice, true},
		{"below a path", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "x-${aws:username}-y"}}`, map[string][]string{"kms:EncryptionContext:user": {"x-bob-y"}}, bob, true},
		{"another user's name", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"alice"}}, bob, false},
		{"the root has none", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"root"}}, rootUser, false},
		{"a default", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username, 'nobody'}"}}`, map[string][]string{"kms:EncryptionContext:user": {"nobody"}}, rootUser, true},
		{"a default that is not needed", "2012-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username, 'nobody'}"}}`, map[string][]string{"kms:EncryptionContext:user": {"nobody"}}, alice, false},
		{"no value under a negated operator", "2012-10-17", `{"StringNotEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"root"}}, rootUser, true},
		{"the old version has none", "2008-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"alice"}}, alice, false},
		{"the old version takes the characters", "2008-10-17", `{"StringEquals": {"kms:EncryptionContext:user": "${aws:username}"}}`, map[string][]string{"kms:EncryptionContext:user": {"${aws:username}"}}, alice, true},
		{"a * of a value is no wildcard", "2012-10-17", `{"StringLike": {"kms:EncryptionContext:user": "${kms:EncryptionContext:who}"}}`, map[string][]string{"kms:EncryptionContext:user": {"alice"}, "kms:EncryptionContext:who": {"*"}}, alice, false},
		{"the characters themselves", "2012-10-17", `{"StringLike": {"kms:EncryptionContext:user": "${*}${?}${$}*"}}`, map[string][]string{"kms:EncryptionContext:user": {"*?$x"}}, alice, true},
		{"the characters themselves are no wildcards", "2012-10-17", `{"StringLike": {"kms:EncryptionContext:user": "${*}"}}`, map[string][]string{"kms:EncryptionContext:user": {"alice"}}, alice, false},
		{"ARN", "2012-10-17", `{"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::${aws:PrincipalAccount}:user/*"}}`, nil, alice, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, fmt.Sprintf(`{"Version": %q, "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Condition": %s}}`, c.version, c.condition), IdentityPolicy)
			if got := p.Decide(request(c.principal, "kms:Decrypt", c.context)) == Allow; got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	p := mustParse(t, `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "arn:aws:kms:*:${aws:PrincipalAccount}:key/*"}}`, IdentityPolicy)
	if p.Decide(request(alice, "kms:Decrypt", nil)) != Allow || p.Decide(request(mallory, "kms:Decrypt", nil)) != None {
		t.Error("a variable in Resource")
	}
}
