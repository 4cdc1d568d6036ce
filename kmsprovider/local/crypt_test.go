package local

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

func TestEncryptTakesUpTo4096Bytes(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	for _, size := range []int{1, 4095, 4096} {
		if err := s.opens(s.encrypt(arn, strings.Repeat("x", size), nil), strings.Repeat("x", size), nil); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	for size, want := range map[int]string{
		0:    "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1",
		4097: "1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
	} {
		err := s.try(&EncryptInput{KeyID: arn, Plaintext: make([]byte, size)})
		wantCode(t, "size", err, codeValidation)
		if !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestDecryptFindsTheKeyAndChecksTheOneThatIsNamed(t *testing.T) {
	s := newStore(t)
	arn, other := s.key(), s.key()
	must[struct{}](s, &CreateAliasInput{AliasName: "alias/a", TargetKeyID: arn})
	ec := kmsprovider.Context{"a": "b"}
	wrapped := s.encrypt("alias/a", "text", ec)
	for keyID, want := range map[string]string{
		"": "", arn: "", "alias/a": "", other: codeIncorrectKey, "alias/none": codeNotFound, "no key": codeNotFound, "arn:aws:x": codeInvalidArn,
	} {
		out, err := s.Do(context.Background(), s.Root(), &DecryptInput{CiphertextBlob: wrapped, EncryptionContext: ec, KeyID: keyID})
		wantCode(t, keyID, err, want)
		if err != nil {
			continue
		}
		if d := out.(*DecryptOutput); d.KeyID != arn || string(d.Plaintext) != "text" || d.EncryptionAlgorithm != "SYMMETRIC_DEFAULT" || d.KeyMaterialID != s.describe(arn).CurrentKeyMaterialID {
			t.Errorf("%s: %+v", keyID, d)
		}
	}
	for name, wrong := range map[string]kmsprovider.Context{"none": nil, "more": {"a": "b", "c": "d"}, "other": {"a": "c"}, "the same letters": {"ab": ""}} {
		wantCode(t, name, s.opens(wrapped, "text", wrong), codeInvalidCiphertext)
	}
	for name, c := range map[string]struct {
		blob []byte
		want string
	}{
		"nothing": {nil, codeValidation}, "too much": {make([]byte, 6145), codeValidation}, "no blob": {make([]byte, 200), codeInvalidCiphertext},
		"cut": {wrapped[:len(wrapped)-1], codeInvalidCiphertext},
	} {
		wantCode(t, name, s.try(&DecryptInput{CiphertextBlob: c.blob}), c.want)
	}
	wantCode(t, "an algorithm of RSA", s.try(&DecryptInput{CiphertextBlob: wrapped, EncryptionAlgorithm: "RSAES_OAEP_SHA_256"}), "InvalidKeyUsageException")
	wantCode(t, "no algorithm", s.try(&EncryptInput{KeyID: arn, Plaintext: []byte("x"), EncryptionAlgorithm: "ROT13"}), codeValidation)
}

func TestReEncryptMovesBetweenKeysAndContexts(t *testing.T) {
	s := newStore(t)
	from, to := s.key(), s.key()
	wrapped := s.encrypt(from, "text", kmsprovider.Context{"a": "b"})
	in := ReEncryptInput{CiphertextBlob: wrapped, SourceEncryptionContext: kmsprovider.Context{"a": "b"}, DestinationKeyID: to, DestinationEncryptionContext: kmsprovider.Context{"c": "d"}}
	for _, source := range []string{"", from} {
		in.SourceKeyID = source
		out := must[ReEncryptOutput](s, &in)
		if out.SourceKeyID != from || out.KeyID != to || out.DestinationKeyMaterialID != s.describe(to).CurrentKeyMaterialID || out.SourceKeyMaterialID != s.describe(from).CurrentKeyMaterialID {
			t.Errorf("%+v", out)
		}
		if err := s.opens(out.CiphertextBlob, "text", kmsprovider.Context{"c": "d"}); err != nil {
			t.Error(err)
		}
	}
	in.SourceKeyID = to
	wantCode(t, "another source", s.try(&in), codeIncorrectKey)
	in.SourceKeyID, in.SourceEncryptionContext = "", nil
	wantCode(t, "another context", s.try(&in), codeInvalidCiphertext)
	in.SourceEncryptionContext, in.DestinationKeyID = kmsprovider.Context{"a": "b"}, ""
	wantCode(t, "no destination", s.try(&in), codeValidation)
}

func TestDataKeysHaveTheLengthThatIsAskedFor(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	for _, c := range []struct {
		spec string
		n    *int
		size int // 0: refused
	}{
		{"AES_256", nil, 32}, {"AES_128", nil, 16}, {"", number(1), 1}, {"", number(1024), 1024},
		{"", nil, 0}, {"AES_256", number(32), 0}, {"AES_512", nil, 0}, {"", number(0), 0}, {"", number(1025), 0}, {"", number(-1), 0},
	} {
		want := ""
		if c.size == 0 {
			want = codeValidation
		}
		out, err := s.Do(context.Background(), s.Root(), &GenerateDataKeyInput{KeyID: arn, KeySpec: c.spec, NumberOfBytes: c.n})
		wantCode(t, "with plaintext", err, want)
		without, err := s.Do(context.Background(), s.Root(), &GenerateDataKeyWithoutPlaintextInput{KeyID: arn, KeySpec: c.spec, NumberOfBytes: c.n})
		wantCode(t, "without plaintext", err, want)
		if c.size == 0 {
			continue
		}
		d := out.(*GenerateDataKeyOutput)
		if len(d.Plaintext) != c.size || d.KeyID != arn || s.opens(d.CiphertextBlob, string(d.Plaintext), nil) != nil {
			t.Errorf("%+v: %d bytes", c, len(d.Plaintext))
		}
		opened := must[DecryptOutput](s, &DecryptInput{CiphertextBlob: without.(*GenerateDataKeyWithoutPlaintextOutput).CiphertextBlob})
		if len(opened.Plaintext) != c.size || bytes.Equal(opened.Plaintext, make([]byte, c.size)) && c.size > 1 {
			t.Errorf("%+v without plaintext: %d bytes", c, len(opened.Plaintext))
		}
	}
	for _, n := range []int{1, 1024} {
		if out := must[GenerateRandomOutput](s, &GenerateRandomInput{NumberOfBytes: number(n)}); len(out.Plaintext) != n {
			t.Errorf("%d random bytes", len(out.Plaintext))
		}
	}
	for _, n := range []*int{nil, number(0), number(1025)} {
		wantCode(t, "random", s.try(&GenerateRandomInput{NumberOfBytes: n}), codeValidation)
	}
}

func TestADryRunDoesNothingAfterAllIsChecked(t *testing.T) {
	s := newStore(t)
	arn, off := s.key(), s.key()
	wrapped := s.encrypt(arn, "text", nil)
	must[struct{}](s, &DisableKeyInput{KeyID: off})
	grant := must[CreateGrantOutput](s, &CreateGrantInput{KeyID: arn, GranteePrincipal: s.Root().ARN, Operations: []string{"Decrypt"}}).GrantID
	writes := s.state.doc.Writes
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"Encrypt":                         {&EncryptInput{KeyID: arn, Plaintext: []byte("x"), DryRun: true}, codeDryRun},
		"Encrypt under a disabled key":    {&EncryptInput{KeyID: off, Plaintext: []byte("x"), DryRun: true}, codeDisabled},
		"Encrypt of nothing":              {&EncryptInput{KeyID: arn, DryRun: true}, codeValidation},
		"Decrypt":                         {&DecryptInput{CiphertextBlob: wrapped, DryRun: true}, codeDryRun},
		"Decrypt in a wrong context":      {&DecryptInput{CiphertextBlob: wrapped, EncryptionContext: kmsprovider.Context{"a": "b"}, DryRun: true}, codeInvalidCiphertext},
		"ReEncrypt":                       {&ReEncryptInput{CiphertextBlob: wrapped, DestinationKeyID: arn, DryRun: true}, codeDryRun},
		"GenerateDataKey":                 {&GenerateDataKeyInput{KeyID: arn, KeySpec: "AES_256", DryRun: true}, codeDryRun},
		"GenerateDataKeyWithoutPlaintext": {&GenerateDataKeyWithoutPlaintextInput{KeyID: arn, KeySpec: "AES_256", DryRun: true}, codeDryRun},
		"CreateGrant":                     {&CreateGrantInput{KeyID: arn, GranteePrincipal: s.Root().ARN, Operations: []string{"Encrypt"}, DryRun: true}, codeDryRun},
		"CreateGrant to nobody":           {&CreateGrantInput{KeyID: arn, GranteePrincipal: "arn:aws:iam::1:user/x", Operations: []string{"Encrypt"}, DryRun: true}, codeInvalidArn},
		"RevokeGrant":                     {&RevokeGrantInput{KeyID: arn, GrantID: grant, DryRun: true}, codeDryRun},
		"RevokeGrant of none":             {&RevokeGrantInput{KeyID: arn, GrantID: "x", DryRun: true}, codeNotFound},
		"RetireGrant":                     {&RetireGrantInput{KeyID: arn, GrantID: grant, DryRun: true}, codeDryRun},
	} {
		out, err := s.Do(context.Background(), s.Root(), c.in)
		wantCode(t, name, err, c.want)
		if out != nil {
			t.Errorf("%s: an output: %+v", name, out)
		}
	}
	wantCode(t, "denied", s.as(s.user("eve", ""), &EncryptInput{KeyID: arn, Plaintext: []byte("x"), DryRun: true}), codeAccessDenied)
	if g := must[ListGrantsOutput](s, &ListGrantsInput{KeyID: arn}).Grants; len(g) != 1 || s.state.doc.Writes != writes+1 { // the user
		t.Errorf("%d grants, %d writes", len(g), s.state.doc.Writes-writes)
	}
}

func TestInputsAndOutputsAreAWSsJSON(t *testing.T) {
	s := newStore(t)
	arn := s.key()
	perform := func(name, request string) map[string]any {
		t.Helper()
		in, ok := NewInput(name)
		if !ok {
			t.Fatal(name)
		}
		if err := json.Unmarshal([]byte(request), in); err != nil {
			t.Fatal(err)
		}
		out, err := s.Do(context.Background(), s.Root(), in)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(b, &fields); err != nil {
			t.Fatal(err)
		}
		return fields
	}
	out := perform("Encrypt", `{"KeyId": "`+arn+`", "Plaintext": "dGV4dA==", "EncryptionContext": {"a": "b"}, "Other": 1}`)
	blob, _ := out["CiphertextBlob"].(string)
	out = perform("Decrypt", `{"CiphertextBlob": "`+blob+`", "EncryptionContext": {"a": "b"}}`)
	if out["Plaintext"] != "dGV4dA==" || out["KeyId"] != arn {
		t.Errorf("%v", out)
	}
	out = perform("ScheduleKeyDeletion", `{"KeyId": "`+arn+`", "PendingWindowInDays": 7}`)
	if out["DeletionDate"] != float64(s.clock.now().AddDate(0, 0, 7).Unix()) {
		t.Errorf("%v", out)
	}
}

func TestDatesAreSecondsWithThreeDecimals(t *testing.T) {
	for text, want := range map[string]string{"1767225600": "1767225600", "1767225600.5": "1767225600.5", "1.7672256e9": "1767225600", "1767225600.1234": "1767225600.123", "0": "0"} {
		var d Timestamp
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if b, err := json.Marshal(d); err != nil || string(b) != want {
			t.Errorf("%s: %s, %v", text, b, err)
		}
	}
	for _, bad := range []string{`"2026-01-01"`, "-1", "1e300", "true"} {
		if err := json.Unmarshal([]byte(bad), new(Timestamp)); err == nil {
			t.Errorf("%s is a date", bad)
		}
	}
}
