package policy

import (
	"errors"
	"strings"
	"testing"
)

// What is refused, and the element that the message names.
func TestMalformedDocuments(t *testing.T) {
	whole := `{"Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"}`
	with := func(old, new string) string {
		if !strings.Contains(whole, old) {
			t.Fatalf("%s is not in the statement", old)
		}
		return keyPolicy(strings.Replace(whole, old, new, 1))
	}
	condition := func(c string) string { return with(`"*"}`, `"*", "Condition": `+c+`}`) }
	mustParse(t, keyPolicy(whole), KeyPolicy)
	for _, c := range []struct{ document, names string }{
		{``, "document: is no JSON"},
		{`[]`, "document: is not an object"},
		{`"x"`, "document"},
		{`{} {}`, "document: is no JSON"},
		{"{\"Id\": \"\xff\"}", "document: is no UTF-8"},
		{`{}`, "document: has no Statement"},
		{`{"Statement": []}`, "Statement: is an empty list"},
		{`{"Statement": "x"}`, "Statement[0]: is not an object"},
		{`{"Statement": [` + whole + `, 7]}`, "Statement[1]: is not an object"},
		{`{"Version": "2012-10-18", "Statement": ` + whole + `}`, `Version: "2012-10-18"`},
		{`{"Version": 2012, "Statement": ` + whole + `}`, "Version: 2012 is not a string"},
		{`{"Version": null, "Statement": ` + whole + `}`, "Version: null"},
		{`{"Id": 7, "Statement": ` + whole + `}`, "Id: 7"},
		{`{"Statement": ` + whole + `, "Statement": ` + whole + `}`, `"Statement" stands there twice`},
		{`{"statement": ` + whole + `}`, `unknown element "statement"`},
		{`{"Statement": ` + whole + `, "Comment": ""}`, `unknown element "Comment"`},
		{with(`"Effect": "Allow"`, `"Effect": "allow"`), `Statement[0].Effect: "allow"`},
		{with(`"Effect": "Allow", `, ``), "Statement[0]: has no Effect"},
		{with(`"Effect"`, `"Effekt"`), `Statement[0]: unknown element "Effekt"`},
		{with(`"Effect": "Allow"`, `"Effect": "Allow", "Effect": "Deny"`), `Statement[0]: "Effect" stands there twice`},
		{with(`"Effect"`, `"Sid": "`+"\u00e9"+`", "Effect"`), "Statement[0].Sid"},
		{keyPolicy(strings.Replace(whole, `"Effect"`, `"Sid": "a", "Effect"`, 1), strings.Replace(whole, `"Effect"`, `"Sid": "a", "Effect"`, 1)), "Statement[1].Sid"},
		{with(`"Principal": "*", `, ``), "Statement[0]: has no Principal"},
		{with(`"Principal": "*"`, `"Principal": "`+alice+`"`), "Statement[0].Principal"},
		{with(`"Principal": "*"`, `"Principal": {}`), "Statement[0].Principal: names nobody"},
		{with(`"Principal": "*"`, `"Principal": {"AWS": []}`), "Statement[0].Principal.AWS"},
		{with(`"Principal": "*"`, `"Principal": {"AWS": [7]}`), "Statement[0].Principal.AWS: 7"},
		{with(`"Principal": "*"`, `"Principal": {"AWS": "alice"}`), `Statement[0].Principal.AWS: "alice"`},
		{with(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::111122223333:user/*"}`), "Statement[0].Principal.AWS"},
		{with(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::111122223333:group/g"}`), "Statement[0].Principal.AWS"},
		{with(`"Principal": "*"`, `"Principal": {"AWS": "arn:aws:iam::1:root"}`), "Statement[0].Principal.AWS"},
		{with(`"Principal": "*"`, `"Principal": {"Service": "*"}`), "Statement[0].Principal.Service"},
		{with(`"Principal": "*"`, `"Principal": {"Federated": "x"}`), "Federated are not supported"},
		{with(`"Principal": "*"`, `"Principal": {"Aws": "*"}`), `unknown type of principal "Aws"`},
		{with(`"Principal": "*"`, `"Principal": "*", "NotPrincipal": {"AWS": "111122223333"}`), "both Principal and NotPrincipal"},
		{with(`"Principal": "*"`, `"NotPrincipal": {"AWS": "111122223333"}`), "Statement[0].NotPrincipal: goes with Deny only"},
		{strings.Replace(with(`"Principal": "*"`, `"NotPrincipal": "*"`), "Allow", "Deny", 1), "Statement[0].NotPrincipal"},
		{with(`"Action": "kms:*", `, ``), "Statement[0]: has no Action"},
		{with(`"kms:*"`, `"Decrypt"`), `Statement[0].Action: "Decrypt"`},
		{with(`"kms:*"`, `"k*:Decrypt"`), `Statement[0].Action: "k*:Decrypt"`},
		{with(`"kms:*"`, `"kms:"`), `Statement[0].Action: "kms:"`},
		{with(`"kms:*"`, `"kms:${aws:username}"`), `Statement[0].Action`},
		{with(`"Action": "kms:*"`, `"Action": "kms:*", "NotAction": "kms:*"`), "both Action and NotAction"},
		{with(`, "Resource": "*"`, ``), "Statement[0]: has no Resource"},
		{with(`"Resource": "*"`, `"Resource": "key/1"`), `Statement[0].Resource: "key/1"`},
		{with(`"Resource": "*"`, `"Resource": "arn:aws:*:x:y:z"`), `Statement[0].Resource`},
		{with(`"Resource": "*"`, `"Resource": "arn:aws:kms:local:111122223333"`), `Statement[0].Resource`},
		{with(`"Resource": "*"`, `"Resource": "arn:aws:kms:local:1:key/${aws:username"`), "has no } after ${"},
		{with(`"Resource": "*"`, `"Resource": "arn:aws:kms:local:1:key/${username}"`), "${username} is no policy variable"},
		{with(`"Resource": "*"`, `"Resource": "arn:aws:kms:local:1:key/${aws:username, x}"`), "the default is not between single quotes"},
		{condition(`[]`), "Statement[0].Condition: is not an object"},
		{condition(`{"StringEqual": {"a:b": "c"}}`), `Statement[0].Condition: unknown operator "StringEqual"`},
		{condition(`{"stringEquals": {"a:b": "c"}}`), `unknown operator "stringEquals"`},
		{condition(`{"BinaryEquals": {"a:b": "c"}}`), `unknown operator "BinaryEquals"`},
		{condition(`{"ForSomeValues:StringEquals": {"a:b": "c"}}`), `unknown operator "ForSomeValues:StringEquals"`},
		{condition(`{"NullIfExists": {"a:b": "true"}}`), "Null stands alone"},
		{condition(`{"ForAnyValue:Null": {"a:b": "true"}}`), "Null stands alone"},
		{condition(`{"StringEquals": {}}`), "Condition.StringEquals: has no condition key"},
		{condition(`{"StringEquals": {"purpose": "x"}}`), `"purpose" is no condition key`},
		{condition(`{"StringEquals": {"a:b": {}}}`), "Condition.StringEquals.a:b"},
		{condition(`{"StringEquals": {"a:b": []}}`), "Condition.StringEquals.a:b"},
		{condition(`{"StringEquals": {"a:b": null}}`), "Condition.StringEquals.a:b"},
		{condition(`{"NumericEquals": {"a:b": "1e9"}}`), `Condition.NumericEquals.a:b: "1e9"`},
		{condition(`{"NumericEquals": {"a:b": "1/2"}}`), "Condition.NumericEquals.a:b"},
		{condition(`{"DateEquals": {"a:b": "31.1.2026"}}`), "Condition.DateEquals.a:b"},
		{condition(`{"Bool": {"a:b": "yes"}}`), "Condition.Bool.a:b"},
		{condition(`{"IpAddress": {"a:b": "203.0.113.0/33"}}`), "Condition.IpAddress.a:b"},
		{condition(`{"IpAddress": {"a:b": "fe80::1%eth0"}}`), "Condition.IpAddress.a:b"},
		{condition(`{"ArnLike": {"a:b": "alice"}}`), "Condition.ArnLike.a:b"},
		{`{"Id": "` + strings.Repeat("x", 33<<10) + `"}`, "longer than 32768 bytes"},
	} {
		_, err := Parse([]byte(c.document), KeyPolicy)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%.200s\n\t%v\n\twant %s", c.document, err, c.names)
		}
	}
	for _, c := range []struct{ document, names string }{
		{keyPolicy(whole), "Statement[0].Principal: a policy of a principal names no other"},
		{strings.Replace(keyPolicy(whole), `"Principal": "*"`, `"Sid": "with space"`, 1), "Statement[0].Sid"},
		{`{"Id": "` + strings.Repeat("x", 7<<10) + `"}`, "longer than 6144 bytes"},
	} {
		_, err := Parse([]byte(c.document), IdentityPolicy)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%.200s\n\t%v\n\twant %s", c.document, err, c.names)
		}
	}
}

// What parses decides, always the same, and Deny is decided whatever else is
// written.
func FuzzParse(f *testing.F) {
	seeds := []string{
		string(Default(account)),
		string(WithAdministratorsAndUsers(account, []string{"alice"}, []string{bob})),
		keyPolicy(`{"Sid": "a", "Effect": "Deny", "NotPrincipal": {"AWS": ["` + alice + `", "111122223333"]}, "NotAction": ["kms:?*"], "NotResource": "arn:aws:kms:*"}`),
		keyPolicy(statementOf("Allow", `{"Service": "a.b", "AWS": "*"}`, "*", `, "Condition": {
			"ForAllValues:StringLike": {"kms:EncryptionContextKeys": ["a*", "${aws:username, 'x'}"]}, "NumericLessThanIfExists": {"kms:x": 3},
			"DateGreaterThan": {"aws:CurrentTime": "2026-01-31"}, "NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Null": {"a:b": true}, "ArnNotLike": {"a:c": "arn:*:*:*:*:${*}"}}`)),
	}
	for _, seed := range seeds {
		if _, err := Parse([]byte(seed), KeyPolicy); err != nil {
			f.Fatalf("a seed is no policy: %v\n%s", err, seed)
		}
		f.Add([]byte(seed), "kms:Decrypt", "purpose", "x")
	}
	f.Fuzz(func(t *testing.T, document []byte, action, key, value string) {
		for _, kind := range []Kind{KeyPolicy, IdentityPolicy} {
			p, err := Parse(document, kind)
			if err != nil {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("error of no kind: %v", err)
				}
				continue
			}
			again := mustParse(t, string(document), kind)
			for _, principal := range []string{rootUser, alice, mallory} {
				r := request(principal, action, map[string][]string{"kms:EncryptionContext:" + key: {value}, "aws:SourceIp": {value}, "kms:EncryptionContextKeys": {key, value}})
				d := p.Decide(r)
				if again.Decide(r) != d || p.Decide(r) != d || p.Delegates(account, r) != again.Delegates(account, r) {
					t.Fatal("decides differently the second time")
				}
				denied := *p
				denied.statements = append(denied.statements[:len(denied.statements):len(denied.statements)], statement{actions: actions{not: true}, resources: resources{not: true}})
				if denied.Decide(r) != Deny {
					t.Fatal("a Deny does not win")
				}
			}
		}
	})
}
