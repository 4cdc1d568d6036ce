package policy

import (
	"fmt"
	"testing"
)

func TestConditions(t *testing.T) {
	// what is in the request's key test:k
	absent, empty := []string(nil), []string{}
	one := func(v ...string) []string { return v }
	for _, c := range []struct {
		operator, values string
		request          []string
		want             bool
	}{
		{"StringEquals", `"a"`, one("a"), true},
		{"StringEquals", `"a"`, one("A"), false},
		{"StringEquals", `["b", "a"]`, one("a"), true},
		{"StringEquals", `"a*"`, one("ab"), false},
		{"StringEquals", `""`, one(""), true},
		{"StringEquals", `"a"`, absent, false},
		{"StringEquals", `"a"`, empty, false},
		{"StringEqualsIfExists", `"a"`, absent, true},
		{"StringEqualsIfExists", `"a"`, one("b"), false},
		{"StringNotEquals", `"a"`, one("b"), true},
		{"StringNotEquals", `"a"`, one("a"), false},
		{"StringNotEquals", `["a", "b"]`, one("b"), false},
		{"StringNotEquals", `["a", "b"]`, one("c"), true},
		{"StringNotEquals", `"a"`, absent, true},
		{"StringNotEqualsIfExists", `"a"`, absent, true},
		{"StringEqualsIgnoreCase", `"aB"`, one("Ab"), true},
		{"StringEqualsIgnoreCase", `"aB"`, one("ac"), false},
		{"StringNotEqualsIgnoreCase", `"aB"`, one("Ab"), false},
		{"StringLike", `"a*c?"`, one("abbcd"), true},
		{"StringLike", `"a*c?"`, one("abbc"), false},
		{"StringLike", `"*"`, one(""), true},
		{"StringLike", `"*"`, absent, false},
		{"StringLike", `"A*"`, one("ab"), false},
		{"StringNotLike", `"a*"`, one("ab"), false},
		{"StringNotLike", `"a*"`, one("b"), true},
		{"StringNotLike", `"a*"`, absent, true},

		// Of several values without a set operator, one is enough.
		{"StringEquals", `"a"`, one("x", "a"), true},
		{"StringNotEquals", `"a"`, one("x", "a"), false},
		{"ForAnyValue:StringEquals", `["a", "b"]`, one("x", "b"), true},
		{"ForAnyValue:StringEquals", `["a", "b"]`, one("x", "y"), false},
		{"ForAnyValue:StringEquals", `"a"`, absent, false},
		{"ForAnyValue:StringEqualsIfExists", `"a"`, absent, true},
		{"ForAnyValue:StringNotEquals", `"a"`, one("x", "a"), true},
		{"ForAnyValue:StringNotEquals", `"a"`, one("a", "a"), false},
		{"ForAnyValue:StringNotEquals", `"a"`, absent, false},
		{"ForAllValues:StringEquals", `["a", "b"]`, one("a", "b"), true},
		{"ForAllValues:StringEquals", `["a", "b"]`, one("a", "x"), false},
		{"ForAllValues:StringEquals", `"a"`, absent, true},
		{"ForAllValues:StringEquals", `"a"`, empty, true},
		{"ForAllValues:StringLike", `"a*"`, one("a", "ab"), true},
		{"ForAllValues:StringNotEquals", `"a"`, one("x", "a"), false},
		{"ForAllValues:StringNotEquals", `"a"`, one("x", "y"), true},

		{"NumericEquals", `"7"`, one("7.0"), true},
		{"NumericEquals", `7`, one("7"), true},
		{"NumericEquals", `"9007199254740993"`, one("9007199254740992"), false},
		{"NumericNotEquals", `7`, one("8"), true},
		{"NumericNotEquals", `7`, absent, true},
		{"NumericLessThan", `30`, one("7"), true},
		{"NumericLessThan", `30`, one("30"), false},
		{"NumericLessThanEquals", `30`, one("30"), true},
		{"NumericGreaterThan", `-1.5`, one("-1"), true},
		{"NumericGreaterThan", `7`, one("7"), false},
		{"NumericGreaterThanEquals", `7`, one("7"), true},
		{"NumericGreaterThanEquals", `7`, one("many"), false},
		{"NumericGreaterThanEquals", `7`, absent, false},

		{"DateEquals", `"2026-01-31T12:00:00Z"`, one("2026-01-31T13:00:00+01:00"), true},
		{"DateEquals", `"0"`, one("1970-01-01T00:00:00Z"), true},
		{"DateNotEquals", `"2026-01-31"`, one("2026-01-31T00:00:00Z"), false},
		{"DateLessThan", `"2026-02"`, one("2026-01-31T23:59:59.999Z"), true},
		{"DateLessThan", `"2026-02"`, one("2026-02-01T00:00:00Z"), false},
		{"DateLessThanEquals", `1769817600`, one("2026-01-31T00:00:00Z"), true},
		{"DateGreaterThan", `"2026-01-31T00:00:00Z"`, one("1769817601"), true},
		{"DateGreaterThanEquals", `"2026-01-31T00:00Z"`, one("2026-01-31T00:00:00Z"), true},
		{"DateGreaterThan", `"2026-01-31T00:00:00Z"`, one("tomorrow"), false},

		{"Bool", `"true"`, one("true"), true},
		{"Bool", `true`, one("True"), true},
		{"Bool", `"false"`, one("true"), false},
		{"Bool", `"false"`, absent, false},
		{"BoolIfExists", `"false"`, absent, true},
		{"Null", `"true"`, absent, true},
		{"Null", `"true"`, empty, true},
		{"Null", `"true"`, one("x"), false},
		{"Null", `false`, one("x"), true},
		{"Null", `false`, absent, false},

		{"IpAddress", `"203.0.113.0/24"`, one("203.0.113.77"), true},
		{"IpAddress", `"203.0.113.5/24"`, one("203.0.113.77"), true},
		{"IpAddress", `"203.0.113.0/24"`, one("203.0.114.1"), false},
		{"IpAddress", `["192.0.2.1", "::1"]`, one("0:0:0:0:0:0:0:1"), true},
		{"IpAddress", `"2001:db8::/32"`, one("2001:db8:1::5"), true},
		{"IpAddress", `"203.0.113.0/24"`, one("::ffff:203.0.113.77"), true},
		{"IpAddress", `"0.0.0.0/0"`, one("nowhere"), false},
		{"IpAddress", `"0.0.0.0/0"`, absent, false},
		{"NotIpAddress", `"203.0.113.0/24"`, one("203.0.113.77"), false},
		{"NotIpAddress", `"203.0.113.0/24"`, one("198.51.100.1"), true},
		{"NotIpAddress", `"203.0.113.0/24"`, absent, true},

		{"ArnEquals", `"arn:aws:iam::111122223333:user/*"`, one(alice), true},
		{"ArnLike", `"arn:aws:iam::111122223333:user/al?ce"`, one(alice), true},
		{"ArnLike", `"arn:aws:iam::*:user/alice"`, one(alice), true},
		{"ArnLike", `"arn:aws:iam:*:user/alice:x"`, one(alice), false}, // parts are matched one by one
		{"ArnLike", `"arn:*:*:*:*:*"`, one(alice), true},
		{"ArnLike", `"*"`, one(alice), true},
		{"ArnLike", `"*"`, one("alice"), false},
		{"ArnLike", `"arn:aws:iam::111122223333:user/alice"`, one(bob), false},
		{"ArnNotEquals", `"arn:aws:iam::111122223333:user/*"`, one(alice), false},
		{"ArnNotLike", `"arn:aws:iam::111122223333:user/b*"`, one(alice), true},
		{"ArnNotLike", `"arn:aws:iam::111122223333:user/b*"`, absent, true},
	} {
		name := fmt.Sprintf("%s %s of %q", c.operator, c.values, c.request)
		p := mustParse(t, fmt.Sprintf(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {%q: {"test:k": %s}}}}`, c.operator, c.values), IdentityPolicy)
		context := map[string][]string{"test:k": c.request}
		if c.request == nil {
			context = nil
		}
		if got := p.Decide(request(alice, "kms:Decrypt", context)) == Allow; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestSeveralConditionsMustAllHold(t *testing.T) {
	p := mustParse(t, `{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
		"StringEquals": {"kms:EncryptionContext:a": "1", "kms:EncryptionContext:b": "2"},
		"Bool": {"test:k": true}}}}`, IdentityPolicy)
	for _, c := range []struct {
		a, b, k string
		want    Decision
	}{{"1", "2", "true", Allow}, {"0", "2", "true", None}, {"1", "0", "true", None}, {"1", "2", "false", None}} {
		got := p.Decide(request(alice, "kms:Decrypt", map[string][]string{
			"kms:EncryptionContext:a": {c.a}, "kms:EncryptionContext:b": {c.b}, "test:k": {c.k}}))
		if got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestConditionKeysAreNamedWithoutCase(t *testing.T) {
	p := mustParse(t, keyPolicy(statementOf("Deny", `"*"`, "kms:*", `, "Condition": {"StringEquals": {"KMS:encryptioncontext:Purpose": "secret"}}`)), KeyPolicy)
	for _, c := range []struct {
		context map[string][]string
		want    Decision
	}{
		{map[string][]string{"kms:EncryptionContext:purpose": {"secret"}}, Deny},
		{map[string][]string{"kms:EncryptionContext:PURPOSE": {"open"}, "kms:EncryptionContext:purpose": {"secret"}}, Deny},
		{map[string][]string{"kms:EncryptionContext:PURPOSE": {"open"}}, None},
		{nil, None},
	} {
		if got := p.Decide(request(alice, "kms:Decrypt", c.context)); got != c.want {
			t.Errorf("%v: %v, want %v", c.context, got, c.want)
		}
	}
}

// A condition on what delegates is a condition on the request.
func TestDelegationUnderACondition(t *testing.T) {
	p := mustParse(t, keyPolicy(statementOf("Allow", aws(rootUser), "kms:*", `, "Condition": {"StringEquals": {"aws:username": "alice"}}`)), KeyPolicy)
	if !p.Delegates(account, request(alice, "kms:Decrypt", nil)) || p.Delegates(account, request(bob, "kms:Decrypt", nil)) {
		t.Error("delegates to the wrong ones")
	}
}

func TestKeysThatFollowFromThePrincipal(t *testing.T) {
	for _, c := range []struct {
		key, value, principal string
		want                  Decision
	}{
		{"aws:PrincipalArn", alice, alice, Allow},
		{"aws:principalaccount", account, rootUser, Allow},
		{"kms:CallerAccount", account, mallory, None},
		{"aws:PrincipalType", "User", bob, Allow},
		{"aws:PrincipalType", "Account", rootUser, Allow},
		{"aws:username", "bob", bob, Allow},
		{"aws:username", "root", rootUser, None},
	} {
		p := mustParse(t, fmt.Sprintf(`{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {"StringEquals": {%q: %q}}}}`, c.key, c.value), IdentityPolicy)
		if got := p.Decide(request(c.principal, "kms:Decrypt", nil)); got != c.want {
			t.Errorf("%s = %s for %s: %v", c.key, c.value, c.principal, got)
		}
	}
}
