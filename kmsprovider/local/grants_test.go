package local

import (
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestGrantsKeepToTheirConstraints(t *testing.T) {
	s := newStore(t)
	arn, user := s.key(), s.user("user", "")
	grant := func(c *GrantConstraints) {
		t.Helper()
		for _, g := range must[ListGrantsOutput](s, &ListGrantsInput{KeyID: arn}).Grants {
			must[struct{}](s, &RevokeGrantInput{KeyID: arn, GrantID: g.GrantID})
		}
		must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt", "Decrypt", "DescribeKey", "ReEncryptFrom", "ReEncryptTo"}, Constraints: c})
	}
	ab, abcd := kmsprovider.Context{"a": "b"}, kmsprovider.Context{"a": "b", "c": "d"}
	for _, c := range []struct {
		name        string
		constraints *GrantConstraints
		none, ab    string
		abcd        string
	}{
		{"no constraint", nil, "", "", ""},
		{"subset", &GrantConstraints{EncryptionContextSubset: ab}, codeAccessDenied, "", ""},
		{"equals", &GrantConstraints{EncryptionContextEquals: ab}, codeAccessDenied, "", codeAccessDenied},
		{"both", &GrantConstraints{EncryptionContextEquals: abcd, EncryptionContextSubset: ab}, codeAccessDenied, codeAccessDenied, ""},
	} {
		grant(c.constraints)
		for _, use := range []struct {
			ec   kmsprovider.Context
			want string
		}{{nil, c.none}, {ab, c.ab}, {abcd, c.abcd}} {
			wantCode(t, c.name+": encrypt", s.as(user, encryptUnder(arn, use.ec)), use.want)
			wantCode(t, c.name+": decrypt", s.as(user, &DecryptInput{CiphertextBlob: s.encrypt(arn, "x", use.ec), EncryptionContext: use.ec}), use.want)
		}
		wantCode(t, c.name+": describe", s.as(user, &DescribeKeyInput{KeyID: arn}), "") // has no context
	}
	// ReEncrypt is two operations, each with its own context.
	grant(&GrantConstraints{EncryptionContextSubset: ab})
	move := func(from, to kmsprovider.Context) Input {
		return &ReEncryptInput{CiphertextBlob: s.encrypt(arn, "x", from), SourceEncryptionContext: from, DestinationKeyID: arn, DestinationEncryptionContext: to}
	}
	wantCode(t, "from and to", s.as(user, move(ab, abcd)), "")
	wantCode(t, "to elsewhere", s.as(user, move(ab, nil)), codeAccessDenied)
	wantCode(t, "from elsewhere", s.as(user, move(nil, ab)), codeAccessDenied)
}

func TestAGrantWithANameIsMadeOnce(t *testing.T) {
	s := newStore(t)
	arn, user := s.key(), s.user("user", "")
	in := CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt", "Decrypt"}, Name: "nightly"}
	first := must[CreateGrantOutput](s, &in)
	in.Operations = []string{"Decrypt", "Encrypt"} // the order is nothing
	again := must[CreateGrantOutput](s, &in)
	if first.GrantID != again.GrantID || first.GrantToken == again.GrantToken {
		t.Errorf("%+v, %+v", first, again)
	}
	in.Operations = []string{"Decrypt"}
	if other := must[CreateGrantOutput](s, &in); other.GrantID == first.GrantID {
		t.Error("another grant has the ID of the first")
	}
	in.Name = ""
	if a, b := must[CreateGrantOutput](s, &in), must[CreateGrantOutput](s, &in); a.GrantID == b.GrantID {
		t.Error("two grants without a name have one ID")
	}
	list := must[ListGrantsOutput](s, &ListGrantsInput{KeyID: arn}).Grants
	if len(list) != 4 || list[0].Name != "nightly" || list[0].GranteePrincipal != user || !slices.Equal(list[0].Operations, []string{"Decrypt", "Encrypt"}) || list[0].KeyID != arn || list[0].IssuingAccount != s.Root().ARN {
		t.Errorf("%+v", list)
	}
	for _, filter := range []ListGrantsInput{{KeyID: arn, GrantID: first.GrantID}, {KeyID: arn, GranteePrincipal: s.Root().ARN}} {
		got := must[ListGrantsOutput](s, &filter).Grants
		if filter.GrantID != "" && (len(got) != 1 || got[0].GrantID != first.GrantID) || filter.GrantID == "" && len(got) != 0 {
			t.Errorf("%+v: %+v", filter, got)
		}
	}
}

func TestGrantsAreRevokedAndRetiredByWhoMay(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	grantee, retiring, admin, other := s.user("grantee", ""), s.user("retiring", ""), s.user("admin", statements(statement("Allow", "", `"kms:RevokeGrant"`, ""))), s.user("other", "")
	make := func(operations ...string) *CreateGrantOutput {
		t.Helper()
		return must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: grantee, RetiringPrincipal: retiring, Operations: operations})
	}
	for _, c := range []struct {
		who, want  string
		operations []string
		by         func(*CreateGrantOutput) Input
	}{
		{retiring, "", []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{GrantToken: g.GrantToken} }},
		{retiring, "", []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{KeyID: arn, GrantID: g.GrantID} }},
		{grantee, codeAccessDenied, []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{GrantToken: g.GrantToken} }},
		{grantee, "", []string{"Encrypt", "RetireGrant"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{GrantToken: g.GrantToken} }},
		{other, codeAccessDenied, []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{GrantToken: g.GrantToken} }},
		{s.Root().ARN, "", []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RetireGrantInput{GrantToken: g.GrantToken} }},
		{admin, "", []string{"Encrypt"}, func(g *CreateGrantOutput) Input { return &RevokeGrantInput{KeyID: arn, GrantID: g.GrantID} }},
		{grantee, codeAccessDenied, []string{"Encrypt", "RetireGrant"}, func(g *CreateGrantOutput) Input { return &RevokeGrantInput{KeyID: arn, GrantID: g.GrantID} }},
	} {
		g := make(c.operations...)
		in := c.by(g)
		wantCode(t, OperationOf(in)+" by "+c.who, s.as(c.who, in), c.want)
		still := len(must[ListGrantsOutput](s, &ListGrantsInput{KeyID: arn, GrantID: g.GrantID}).Grants) == 1
		if still != (c.want != "") {
			t.Errorf("%s by %s: the grant is there: %t", OperationOf(in), c.who, still)
		}
		if !still {
			wantCode(t, "a second time", s.try(in), codeNotFound)
		}
	}
	s.as(grantee, encryptUnder(arn, nil))
	left := must[ListGrantsOutput](s, &ListRetirableGrantsInput{RetiringPrincipal: retiring}).Grants
	if len(left) != 3 || left[0].RetiringPrincipal != retiring {
		t.Errorf("%+v", left)
	}
	wantCode(t, "while it is there", s.as(grantee, encryptUnder(arn, nil)), "")
	for _, g := range left {
		must[struct{}](s, &RevokeGrantInput{KeyID: arn, GrantID: g.GrantID})
	}
	wantCode(t, "when it is gone", s.as(grantee, encryptUnder(arn, nil)), codeAccessDenied)
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"nothing named":      {&RetireGrantInput{}, codeValidation},
		"no grant ID":        {&RetireGrantInput{KeyID: arn}, codeValidation},
		"both":               {&RetireGrantInput{KeyID: arn, GrantID: "x", GrantToken: "y"}, codeValidation},
		"a token that is no": {&RetireGrantInput{GrantToken: "AAAA"}, "InvalidGrantTokenException"},
		"an unused token":    {&EncryptInput{KeyID: arn, Plaintext: []byte("x"), GrantTokens: []string{make("Encrypt").GrantToken}}, ""},
		"a bad token":        {&EncryptInput{KeyID: arn, Plaintext: []byte("x"), GrantTokens: []string{"x"}}, "InvalidGrantTokenException"},
		"too many tokens":    {&EncryptInput{KeyID: arn, Plaintext: []byte("x"), GrantTokens: slices.Repeat([]string{make("Encrypt").GrantToken}, 11)}, codeValidation},
	} {
		wantCode(t, name, s.try(c.in), c.want)
	}
}

func TestWhoMayGrantByAGrantGivesNoMoreThanItHas(t *testing.T) {
	s := newStore(t)
	arn, parent, child := s.key(), s.user("parent", ""), s.user("child", "")
	ab, abcd := kmsprovider.Context{"a": "b"}, kmsprovider.Context{"a": "b", "c": "d"}
	for _, c := range []struct {
		name       string
		has        *GrantConstraints
		gives      *GrantConstraints
		operations []string
		want       string
	}{
		{"the same", nil, nil, []string{"Encrypt"}, ""},
		{"more operations", nil, nil, []string{"Encrypt", "Decrypt"}, codeAccessDenied},
		{"stricter", nil, &GrantConstraints{EncryptionContextSubset: ab}, []string{"Encrypt"}, ""},
		{"without its constraint", &GrantConstraints{EncryptionContextSubset: ab}, nil, []string{"Encrypt"}, codeAccessDenied},
		{"its constraint", &GrantConstraints{EncryptionContextSubset: ab}, &GrantConstraints{EncryptionContextSubset: ab}, []string{"Encrypt"}, ""},
		{"a larger subset", &GrantConstraints{EncryptionContextSubset: ab}, &GrantConstraints{EncryptionContextSubset: abcd}, []string{"Encrypt"}, ""},
		{"a smaller subset", &GrantConstraints{EncryptionContextSubset: abcd}, &GrantConstraints{EncryptionContextSubset: ab}, []string{"Encrypt"}, codeAccessDenied},
		{"equals within a subset", &GrantConstraints{EncryptionContextSubset: ab}, &GrantConstraints{EncryptionContextEquals: abcd}, []string{"Encrypt"}, ""},
		{"a subset of equals", &GrantConstraints{EncryptionContextEquals: ab}, &GrantConstraints{EncryptionContextSubset: ab}, []string{"Encrypt"}, codeAccessDenied},
		{"the same equals", &GrantConstraints{EncryptionContextEquals: ab}, &GrantConstraints{EncryptionContextEquals: ab}, []string{"Encrypt"}, ""},
		{"other equals", &GrantConstraints{EncryptionContextEquals: ab}, &GrantConstraints{EncryptionContextEquals: abcd}, []string{"Encrypt"}, codeAccessDenied},
	} {
		had := must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: parent, Operations: []string{"Encrypt", "CreateGrant"}, Constraints: c.has})
		wantCode(t, c.name, s.as(parent, &CreateGrantInput{KeyID: arn, GranteePrincipal: child, Operations: c.operations, Constraints: c.gives}), c.want)
		must[struct{}](s, &RevokeGrantInput{KeyID: arn, GrantID: had.GrantID})
	}
}

func TestBadGrantsAreRefused(t *testing.T) {
	s := newStore(t)
	arn, user := s.key(), s.user("user", "")
	many := kmsprovider.Context{}
	for _, letter := range "abcdefghi" {
		many[string(letter)] = ""
	}
	for name, c := range map[string]struct {
		edit func(*CreateGrantInput)
		want string
	}{
		"no operations":        {func(in *CreateGrantInput) { in.Operations = nil }, codeValidation},
		"an unknown operation": {func(in *CreateGrantInput) { in.Operations = []string{"Sign"} }, codeValidation},
		"no grantee":           {func(in *CreateGrantInput) { in.GranteePrincipal = "" }, codeValidation},
		"an unknown grantee":   {func(in *CreateGrantInput) { in.GranteePrincipal = user + "x" }, codeInvalidArn},
		"an unknown retirer":   {func(in *CreateGrantInput) { in.RetiringPrincipal = user + "x" }, codeInvalidArn},
		"a bad name":           {func(in *CreateGrantInput) { in.Name = "a b" }, codeValidation},
		"nine pairs":           {func(in *CreateGrantInput) { in.Constraints = &GrantConstraints{EncryptionContextSubset: many} }, codeValidation},
		"a long pair": {func(in *CreateGrantInput) {
			in.Constraints = &GrantConstraints{EncryptionContextEquals: kmsprovider.Context{"a": strings.Repeat("b", 384)}}
		}, codeValidation},
		"an alias for a key":    {func(in *CreateGrantInput) { in.KeyID = "alias/a" }, codeNotFound},
		"all that it should be": {func(*CreateGrantInput) {}, ""},
	} {
		in := &CreateGrantInput{KeyID: arn, GranteePrincipal: user, Operations: []string{"Encrypt"}}
		c.edit(in)
		wantCode(t, name, s.try(in), c.want)
	}
}
