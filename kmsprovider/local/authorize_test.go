package local

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
)

// statement is a policy statement on all resources; more is added as it is.
func statement(effect, principal, action, more string) string {
	if principal != "" {
		principal = `"Principal": ` + principal + `, `
	}
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf(`{"Effect": %q, %s"Action": %s, "Resource": "*"%s}`, effect, principal, action, more)
}

func statements(all ...string) string {
	return `{"Version": "2012-10-17", "Statement": [` + strings.Join(all, ", ") + `]}`
}

// aws is a principal element that names ARNs.
func aws(arns ...string) string { return `{"AWS": ["` + strings.Join(arns, `", "`) + `"]}` }

// withPolicy makes a key that has the policy.
func (s *store) withPolicy(document string) string {
	s.t.Helper()
	return must[CreateKeyOutput](s, &CreateKeyInput{Policy: document, BypassPolicyLockoutSafetyCheck: true}).KeyMetadata.ARN
}

func encryptUnder(arn string, ec kmsprovider.Context) Input {
	return &EncryptInput{KeyID: arn, Plaintext: []byte("x"), EncryptionContext: ec}
}

func TestKeyPolicyIdentityPolicyAndGrantDecideTogether(t *testing.T) {
	s := newStore(t)
	root := s.Root().ARN
	allows, denies := statement("Allow", "", `"kms:Encrypt"`, ""), statement("Deny", "", `"kms:*"`, "")
	users := map[string]string{"none": s.user("none", ""), "allowed": s.user("allowed", statements(allows)), "denied": s.user("denied", statements(denies)), "both": s.user("both", statements(allows, denies))}
	all := func(effect, action string, arns ...string) string { return statement(effect, aws(arns...), action, "") }
	keys := map[string]string{
		"default":       s.key(),
		"nobody":        s.withPolicy(statements(all("Allow", `"kms:Encrypt"`, s.user("nobody", "")))),
		"to each":       s.withPolicy(statements(all("Allow", `"kms:Encrypt"`, users["none"], users["allowed"], users["denied"], users["both"]))),
		"denying":       s.withPolicy(statements(all("Allow", `"kms:*"`, root), all("Deny", `"kms:Encrypt"`, users["none"], users["allowed"]))),
		"denying root":  s.withPolicy(statements(all("Allow", `"kms:*"`, root), statement("Deny", `{"AWS": "`+root+`"}`, `"kms:Encrypt"`, ""))),
		"delegating":    s.withPolicy(statements(all("Allow", `"kms:Encrypt"`, root))),
		"other actions": s.withPolicy(statements(all("Allow", `"kms:Decrypt"`, root))),
	}
	for _, c := range []struct{ key, allowed string }{
		{"default", "root allowed"},
		{"nobody", ""}, // the root too is bound by the key policy
		{"to each", "none allowed"},
		{"denying", "root"},
		{"denying root", ""}, // an account as the principal of a Deny is all that are in it
		{"delegating", "root allowed"},
		{"other actions", ""},
	} {
		for name, arn := range map[string]string{"root": root, "none": users["none"], "allowed": users["allowed"], "denied": users["denied"], "both": users["both"]} {
			want := codeAccessDenied
			if strings.Contains(" "+c.allowed+" ", " "+name+" ") {
				want = ""
			}
			wantCode(t, c.key+" for "+name, s.as(arn, encryptUnder(keys[c.key], nil)), want)
		}
	}
	// A grant adds what no policy allows, and takes no Deny away.
	for _, name := range []string{"none", "denied"} {
		must[CreateGrantOutput](s, &CreateGrantInput{KeyID: keys["default"], GranteePrincipal: users[name], Operations: []string{"Encrypt"}})
	}
	wantCode(t, "granted", s.as(users["none"], encryptUnder(keys["default"], nil)), "")
	wantCode(t, "granted for another operation", s.as(users["none"], &DescribeKeyInput{KeyID: keys["default"]}), codeAccessDenied)
	wantCode(t, "granted and denied", s.as(users["denied"], encryptUnder(keys["default"], nil)), codeAccessDenied)
	wantCode(t, "no principal", s.as("arn:aws:iam::"+s.Account()+":user/unknown", encryptUnder(keys["to each"], nil)), codeAccessDenied)
}

func TestADenialNamesWhoWhatAndWhy(t *testing.T) {
	s := newStore(t)
	eve, arn := s.user("eve", ""), s.key()
	err := s.as(eve, encryptUnder(arn, nil))
	want := "AccessDeniedException: User: " + eve + " is not authorized to perform: kms:Encrypt on resource: " + arn + " because no identity-based policy allows the action"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	// Who may not use a key does not learn its state.
	must[struct{}](s, &DisableKeyInput{KeyID: arn})
	wantCode(t, "a disabled key", s.as(eve, encryptUnder(arn, nil)), codeAccessDenied)
	// Nor does a call without a key need less.
	for _, in := range []Input{&ListKeysInput{}, &CreateKeyInput{}, &GenerateRandomInput{NumberOfBytes: number(1)}, &ListAliasesInput{}, &CreatePrincipalInput{PrincipalName: "x"}, &ListPrincipalsInput{}} {
		wantCode(t, OperationOf(in), s.as(eve, in), codeAccessDenied)
	}
	adam := s.user("adam", statements(statement("Allow", "", `"kms:*"`, "")))
	for _, in := range []Input{&ListKeysInput{}, &CreateKeyInput{}, &GenerateRandomInput{NumberOfBytes: number(1)}, &ListAliasesInput{}} {
		wantCode(t, OperationOf(in), s.as(adam, in), "")
	}
	for _, in := range []Input{&CreatePrincipalInput{PrincipalName: "x"}, &ListPrincipalsInput{}, &EnsureDefaultKeyInput{}} {
		wantCode(t, OperationOf(in)+" is the root's", s.as(adam, in), codeAccessDenied)
	}
}

func TestAdministratorsManageAndUsersUse(t *testing.T) {
	s := newStore(t)
	admin, user := s.user("admin", ""), s.user("user", "")
	arn := s.withPolicy(string(policy.WithAdministratorsAndUsers(s.Account(), []string{admin}, []string{user})))
	wrapped := s.encrypt(s.key(), "x", nil)
	for _, c := range []struct {
		in          Input
		admin, user string
	}{
		{encryptUnder(arn, nil), codeAccessDenied, ""},
		{&GenerateDataKeyInput{KeyID: arn, KeySpec: "AES_256"}, codeAccessDenied, ""},
		{&DescribeKeyInput{KeyID: arn}, "", ""},
		{&TagResourceInput{KeyID: arn, Tags: []Tag{{"a", "b"}}}, "", codeAccessDenied},
		{&RotateKeyOnDemandInput{KeyID: arn}, "", codeAccessDenied},
		{&GetKeyPolicyInput{KeyID: arn}, "", codeAccessDenied},
		{&ReEncryptInput{CiphertextBlob: wrapped, DestinationKeyID: arn}, codeAccessDenied, codeAccessDenied}, // the source is not theirs
		{&ScheduleKeyDeletionInput{KeyID: arn}, "", codeAccessDenied},
	} {
		wantCode(t, OperationOf(c.in)+" by the user", s.as(user, c.in), c.user)
		wantCode(t, OperationOf(c.in)+" by the administrator", s.as(admin, c.in), c.admin)
	}
}

func TestConditionsSeeTheRequest(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	must[struct{}](s, &CreateAliasInput{AliasName: "alias/a", TargetKeyID: arn})
	must[struct{}](s, &TagResourceInput{KeyID: arn, Tags: []Tag{{"team", "red"}}})
	user := s.user("user", "")
	ec := kmsprovider.Context{"purpose": "test", "n": "1"}
	wrapped := s.encrypt(arn, "x", ec)
	encrypt, byAlias := encryptUnder(arn, ec), encryptUnder("alias/a", ec)
	for _, c := range []struct {
		condition string
		in        Input
		want      bool
	}{
		{`"StringEquals": {"kms:EncryptionContext:purpose": "test"}`, encrypt, true},
		{`"StringEquals": {"kms:EncryptionContext:purpose": "other"}`, encrypt, false},
		{`"StringEquals": {"kms:EncryptionContext:purpose": "test"}`, encryptUnder(arn, nil), false},
		{`"StringEquals": {"kms:EncryptionContext:purpose": "test"}`, &DecryptInput{CiphertextBlob: wrapped, EncryptionContext: ec}, true},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["purpose", "n"]}`, encrypt, true},
		{`"ForAllValues:StringEquals": {"kms:EncryptionContextKeys": ["purpose"]}`, encrypt, false},
		{`"StringEquals": {"kms:KeyOrigin": "AWS_KMS", "kms:KeySpec": "SYMMETRIC_DEFAULT", "kms:KeyUsage": "ENCRYPT_DECRYPT"}`, encrypt, true},
		{`"StringEquals": {"kms:KeyOrigin": "EXTERNAL"}`, encrypt, false},
		{`"StringEquals": {"kms:CallerAccount": "` + s.Account() + `"}`, encrypt, true},
		{`"Null": {"kms:ViaService": "true"}`, encrypt, true},
		{`"StringEquals": {"kms:RequestAlias": "alias/a"}`, byAlias, true},
		{`"StringEquals": {"kms:RequestAlias": "alias/a"}`, encrypt, false},
		{`"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/a"}`, encrypt, true},
		{`"StringEquals": {"aws:ResourceTag/team": "red"}`, encrypt, true},
		{`"StringEquals": {"aws:ResourceTag/team": "blue"}`, encrypt, false},
		{`"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}`, encrypt, true},
		{`"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}`, encrypt, false},
		{`"ArnEquals": {"aws:PrincipalArn": "` + user + `"}`, encrypt, true},
		{`"StringEquals": {"aws:username": "user"}`, encrypt, true},
		{`"DateLessThan": {"aws:CurrentTime": "2026-06-01T00:00:00Z"}`, encrypt, true},
		{`"DateLessThan": {"aws:CurrentTime": "2025-06-01T00:00:00Z"}`, encrypt, false},
		{`"StringEquals": {"kms:EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}`, encrypt, true},
		{`"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "Decrypt"]}`, &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt"}}, true},
		{`"ForAllValues:StringEquals": {"kms:GrantOperations": ["Encrypt", "Decrypt"]}`, &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt", "CreateGrant"}}, false},
		{`"StringEquals": {"kms:GranteePrincipal": "` + user + `"}`, &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt"}}, true},
		{`"NumericGreaterThanEquals": {"kms:ScheduleKeyDeletionPendingWindowInDays": "20"}`, &ScheduleKeyDeletionInput{KeyID: arn, PendingWindowInDays: number(7)}, false},
		{`"NumericLessThan": {"kms:RotationPeriodInDays": "100"}`, &EnableKeyRotationInput{KeyID: arn, RotationPeriodInDays: number(90)}, true},
		{`"StringEquals": {"aws:RequestTag/a": "b"}`, &TagResourceInput{KeyID: arn, Tags: []Tag{{"a", "b"}}}, true},
		{`"ForAllValues:StringEquals": {"aws:TagKeys": "a"}`, &UntagResourceInput{KeyID: arn, TagKeys: []string{"x"}}, false},
		{`"Bool": {"kms:BypassPolicyLockoutSafetyCheck": "false"}`, &CreateKeyInput{}, true},
	} {
		must[struct{}](s, &PutPrincipalPolicyInput{PrincipalName: "user", Policy: statements(statement("Allow", "", `"kms:*"`, `"Condition": {`+c.condition+`}`))})
		want := codeAccessDenied
		if c.want {
			want = ""
		}
		wantCode(t, OperationOf(c.in)+" if "+c.condition, s.as(user, c.in), want)
	}
}

func TestPoliciesAreCheckedBeforeTheyAreTaken(t *testing.T) {
	s := newStore(t)
	arn, eve := s.key(), s.user("eve", "")
	before := must[GetKeyPolicyOutput](s, &GetKeyPolicyInput{KeyID: arn})
	if before.PolicyName != "default" || !strings.Contains(before.Policy, s.Root().ARN) {
		t.Errorf("%+v", before)
	}
	lockout := statements(statement("Allow", aws(eve), `"kms:*"`, ""))
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"nothing":           {&PutKeyPolicyInput{KeyID: arn}, codeValidation},
		"no JSON":           {&PutKeyPolicyInput{KeyID: arn, Policy: "{"}, codeMalformedPolicy},
		"an unknown effect": {&PutKeyPolicyInput{KeyID: arn, Policy: statements(statement("Maybe", aws(eve), `"kms:*"`, ""))}, codeMalformedPolicy},
		"another name":      {&PutKeyPolicyInput{KeyID: arn, PolicyName: "other", Policy: before.Policy}, codeNotFound},
		"a lockout":         {&PutKeyPolicyInput{KeyID: arn, Policy: lockout}, codeMalformedPolicy},
		"a new key's":       {&CreateKeyInput{Policy: lockout}, codeMalformedPolicy},
		"too long":          {&PutKeyPolicyInput{KeyID: arn, Policy: before.Policy + strings.Repeat(" ", maxPolicy)}, codeValidation},
		"a principal's":     {&PutPrincipalPolicyInput{PrincipalName: "eve", Policy: lockout}, codeMalformedPolicy},
		"of nobody":         {&PutPrincipalPolicyInput{PrincipalName: "adam", Policy: ""}, codeNotFound},
	} {
		wantCode(t, name, s.try(c.in), c.want)
	}
	if after := must[GetKeyPolicyOutput](s, &GetKeyPolicyInput{KeyID: arn, PolicyName: "default"}); *after != *before {
		t.Error("the policy was changed")
	}
	must[struct{}](s, &PutKeyPolicyInput{KeyID: arn, Policy: lockout, BypassPolicyLockoutSafetyCheck: true})
	wantCode(t, "locked out", s.try(&GetKeyPolicyInput{KeyID: arn}), codeAccessDenied)
	out, err := s.another().Do(context.Background(), Caller{ARN: eve}, &GetKeyPolicyInput{KeyID: arn})
	if err != nil || out.(*GetKeyPolicyOutput).Policy != lockout {
		t.Errorf("%v", err)
	}
}
