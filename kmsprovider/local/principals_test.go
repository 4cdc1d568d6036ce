package local

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestAPrincipalHasAnAccessKeyOfAWSsShape(t *testing.T) {
	s := newStore(t)
	out := must[CreatePrincipalOutput](s, &CreatePrincipalInput{PrincipalName: "ci@example.org"})
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(out.Principal.AccessKeyID) || !regexp.MustCompile(`^[A-Za-z0-9/+]{40}$`).MatchString(out.SecretAccessKey) {
		t.Errorf("access key %s, secret of %d characters", out.Principal.AccessKeyID, len(out.SecretAccessKey))
	}
	if want := "arn:aws:iam::" + s.Account() + ":user/ci@example.org"; out.Principal.ARN != want {
		t.Errorf("%s, want %s", out.Principal.ARN, want)
	}
	if b, err := os.ReadFile(s.Path()); err != nil || bytes.Contains(b, []byte(out.SecretAccessKey)) {
		t.Errorf("the file shows the secret: %v", err)
	}
	c, secret, err := s.another().Principal(context.Background(), out.Principal.AccessKeyID)
	if err != nil || c.ARN != out.Principal.ARN || c.AccessKeyID != out.Principal.AccessKeyID || string(secret) != out.SecretAccessKey {
		t.Errorf("%+v, %v", c, err)
	}
	for _, unknown := range []string{"", "AKIAAAAAAAAAAAAAAAAA", strings.ToLower(out.Principal.AccessKeyID)} {
		c, secret, err := s.Principal(context.Background(), unknown)
		wantCode(t, unknown, err, "UnrecognizedClientException")
		if c != (Caller{}) || secret != nil {
			t.Errorf("%q: %+v", unknown, c)
		}
	}
	wantCode(t, "a second time", s.try(&CreatePrincipalInput{PrincipalName: "ci@example.org"}), codeAlreadyExists)
	for _, bad := range []string{"", "a b", "a/b", "ä", strings.Repeat("a", 65), "root:x"} {
		wantCode(t, bad, s.try(&CreatePrincipalInput{PrincipalName: bad}), codeValidation)
	}
}

func TestADeletedPrincipalMayNothing(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	user := s.user("user", statements(statement("Allow", "", `"kms:*"`, "")))
	must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt"}})
	list := must[ListPrincipalsOutput](s, &ListPrincipalsInput{}).Principals
	if len(list) != 1 || list[0].ARN != user {
		t.Fatalf("%+v", list)
	}
	if p := must[GetPrincipalPolicyOutput](s, &GetPrincipalPolicyInput{PrincipalName: "user"}); !strings.Contains(p.Policy, "kms:*") {
		t.Errorf("%+v", p)
	}
	wantCode(t, "before", s.as(user, encryptUnder(arn, nil)), "")
	must[struct{}](s, &DeletePrincipalInput{PrincipalName: "user"})
	wantCode(t, "after", s.as(user, encryptUnder(arn, nil)), codeAccessDenied)
	_, _, err := s.Principal(context.Background(), list[0].AccessKeyID)
	wantCode(t, "its access key", err, "UnrecognizedClientException")
	s.user("user", "") // one of the same name has neither policy nor grants
	wantCode(t, "a new one", s.as(user, encryptUnder(arn, nil)), codeAccessDenied)
	wantCode(t, "of nobody", s.try(&DeletePrincipalInput{PrincipalName: "nobody"}), codeNotFound)
	wantCode(t, "of nobody", s.try(&GetPrincipalPolicyInput{PrincipalName: "nobody"}), codeNotFound)
}

func TestAliasesMoveAndGo(t *testing.T) {
	s := newStore(t)
	a, b := s.key(), s.key()
	must[struct{}](s, &CreateAliasInput{AliasName: "alias/x", TargetKeyID: a})
	s.clock.passDays(1)
	must[struct{}](s, &UpdateAliasInput{AliasName: "alias/x", TargetKeyID: b})
	if m := s.describe("alias/x"); m.ARN != b {
		t.Errorf("%+v", m)
	}
	list := must[ListAliasesOutput](s, &ListAliasesInput{KeyID: b}).Aliases
	if len(list) != 1 || list[0].AliasName != "alias/x" || list[0].LastUpdatedDate.Sub(list[0].CreationDate.Time).Hours() != 24 {
		t.Errorf("%+v", list)
	}
	if other := must[ListAliasesOutput](s, &ListAliasesInput{KeyID: a}).Aliases; len(other) != 0 {
		t.Errorf("%+v", other)
	}
	must[struct{}](s, &DeleteAliasInput{AliasName: "alias/x"})
	for _, in := range []Input{&DescribeKeyInput{KeyID: "alias/x"}, &DeleteAliasInput{AliasName: "alias/x"}, &UpdateAliasInput{AliasName: "alias/x", TargetKeyID: a}} {
		wantCode(t, OperationOf(in), s.try(in), codeNotFound)
	}
	// The permission is needed on the alias and on its keys.
	must[struct{}](s, &CreateAliasInput{AliasName: "alias/y", TargetKeyID: a})
	onlyAlias := s.user("alias", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "arn:aws:kms:local:`+s.Account()+`:alias/*"}]}`)
	onlyKey := s.user("key", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "`+a+`"}]}`)
	for _, in := range []Input{&CreateAliasInput{AliasName: "alias/z", TargetKeyID: a}, &DeleteAliasInput{AliasName: "alias/y"}, &UpdateAliasInput{AliasName: "alias/y", TargetKeyID: b}} {
		wantCode(t, OperationOf(in)+" on the alias alone", s.as(onlyAlias, in), codeAccessDenied)
		wantCode(t, OperationOf(in)+" on the key alone", s.as(onlyKey, in), codeAccessDenied)
	}
}

func TestTagsAreSetReplacedAndRemoved(t *testing.T) {
	s := newStore(t)
	arn := must[CreateKeyOutput](s, &CreateKeyInput{Tags: []Tag{{"a", "1"}, {"b", "2"}}}).KeyMetadata.ARN
	must[struct{}](s, &TagResourceInput{KeyID: arn, Tags: []Tag{{"b", "3"}, {"c", ""}}})
	must[struct{}](s, &UntagResourceInput{KeyID: arn, TagKeys: []string{"a", "none"}})
	got := must[ListResourceTagsOutput](s, &ListResourceTagsInput{KeyID: arn}).Tags
	if len(got) != 2 || got[0] != (Tag{"b", "3"}) || got[1] != (Tag{"c", ""}) {
		t.Errorf("%+v", got)
	}
	var many []Tag
	for i := range maxTags {
		many = append(many, Tag{strings.Repeat("x", i+1), ""})
	}
	for name, c := range map[string]struct {
		tags []Tag
		want string
	}{
		"of AWS's own": {[]Tag{{"AWS:x", ""}}, "TagException"}, "no key": {[]Tag{{"", "x"}}, "TagException"}, "twice": {[]Tag{{"a", ""}, {"a", ""}}, "TagException"},
		"a long key": {[]Tag{{strings.Repeat("x", 129), ""}}, "TagException"}, "a long value": {[]Tag{{"x", strings.Repeat("x", 257)}}, "TagException"},
		"too many": {many, codeLimit},
	} {
		wantCode(t, name, s.try(&TagResourceInput{KeyID: arn, Tags: c.tags}), c.want)
	}
	must[struct{}](s, &UpdateKeyDescriptionInput{KeyID: arn, Description: "new"})
	if m := s.describe(arn); m.Description != "new" {
		t.Errorf("%+v", m)
	}
	wantCode(t, "a long description", s.try(&UpdateKeyDescriptionInput{KeyID: arn, Description: strings.Repeat("x", 8193)}), codeValidation)
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	s := newStore(t)
	for name, in := range map[string]*CreateKeyInput{
		"multi-Region": {MultiRegion: true}, "RSA": {KeySpec: "RSA_2048"}, "RSA by the old name": {CustomerMasterKeySpec: "RSA_2048"}, "signing": {KeyUsage: "SIGN_VERIFY"},
		"CloudHSM": {Origin: "AWS_CLOUDHSM"}, "a custom key store": {CustomKeyStoreID: "cks-1"},
	} {
		wantCode(t, name, s.try(in), codeUnsupported)
	}
	must[CreateKeyOutput](s, &CreateKeyInput{KeySpec: "SYMMETRIC_DEFAULT", CustomerMasterKeySpec: "SYMMETRIC_DEFAULT", KeyUsage: "ENCRYPT_DECRYPT", Origin: "AWS_KMS"})
	if keys := must[ListKeysOutput](s, &ListKeysInput{}).Keys; len(keys) != 1 {
		t.Errorf("%d keys", len(keys))
	}
}

func TestListsComeInPages(t *testing.T) {
	s := newStore(t)
	var want []string
	for range 7 {
		want = append(want, s.key())
	}
	pages := func(limit int, between func(page int)) (got []string) {
		t.Helper()
		in := ListKeysInput{Limit: number(limit)}
		for n := 1; ; n++ {
			out := must[ListKeysOutput](s, &in)
			if len(out.Keys) > limit || out.Truncated != (out.NextMarker != "") {
				t.Fatalf("page %d: %+v", n, out)
			}
			for _, k := range out.Keys {
				got = append(got, k.KeyARN)
			}
			if in.Marker = out.NextMarker; !out.Truncated {
				return got
			}
			between(n)
		}
	}
	for _, limit := range []int{1, 2, 3, 6, 7, 8, 1000} {
		if got := pages(limit, func(int) {}); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("limit %d: %d keys", limit, len(got))
		}
	}
	// A key that comes or goes meanwhile hides no other.
	must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: want[0], PendingWindowInDays: number(7)})
	got := pages(3, func(page int) {
		if page == 1 {
			s.clock.passDays(7)
			s.key()
		}
	})
	if len(got) != 8 || got[3] != want[3] || got[6] != want[6] {
		t.Errorf("%d keys", len(got))
	}
	for _, bad := range []ListKeysInput{{Marker: "x"}, {Marker: "eA"}, {Marker: "LTE6eA"}, {Marker: "MTp4\n"}} {
		wantCode(t, bad.Marker, s.try(&bad), "InvalidMarkerException")
	}
	for _, n := range []int{0, -1, 1001} {
		wantCode(t, "limit", s.try(&ListKeysInput{Limit: number(n)}), codeValidation)
	}
	if out := must[ListKeyPoliciesOutput](s, &ListKeyPoliciesInput{KeyID: want[1]}); len(out.PolicyNames) != 1 || out.PolicyNames[0] != "default" || out.Truncated {
		t.Errorf("%+v", out)
	}
}

func TestANewPassphraseOpensTheKeystoreAndTheOldOneDoesNot(t *testing.T) {
	s := newStore(t)
	other := s.another()
	arn := s.key()
	wrapped := s.encrypt(arn, "text", kmsprovider.Context{"a": "b"})
	say := func(text string) func() ([]byte, error) { return func() ([]byte, error) { return []byte(text), nil } }
	for name, c := range map[string]struct{ current, next string }{"a wrong one": {"wrong", "new"}, "an empty one": {"passphrase", ""}} {
		if err := s.ChangePassphrase(context.Background(), say(c.current), say(c.next), nil); err == nil {
			t.Errorf("%s: changed", name)
		}
	}
	salt := bytes.Clone(s.state.doc.KDF.Salt)
	if err := s.ChangePassphrase(context.Background(), say("passphrase"), say("new"), &KDFParams{Time: 2, MemoryKiB: 16, Threads: 1}); err != nil {
		t.Fatal(err)
	}
	for _, k := range []*store{s, other} { // those that are open go on
		if err := k.opens(wrapped, "text", kmsprovider.Context{"a": "b"}); err != nil {
			t.Error(err)
		}
	}
	if d := s.state.doc; bytes.Equal(d.KDF.Salt, salt) || d.KDF.Time != 2 || d.KDF.MemoryKiB != 16 {
		t.Errorf("%+v", d.KDF)
	}
	o := testOptions(s.Path())
	if _, err := Open(context.Background(), o); err == nil {
		t.Error("the old passphrase opens it")
	}
	o.Passphrase = say("new")
	k, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Decrypt(context.Background(), arn, wrapped, kmsprovider.Context{"a": "b"}); err != nil {
		t.Error(err)
	}
}
