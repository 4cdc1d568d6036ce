package local

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"reflect"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

// testMaterial is key material of 32 bytes.
func testMaterial(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func setKeyID(in Input, keyID string) {
	reflect.ValueOf(in).Elem().FieldByName("KeyID").SetString(keyID)
}

// parameters asks for a wrapping key.
func (s *store) parameters(keyID, spec string) *GetParametersForImportOutput {
	s.t.Helper()
	return must[GetParametersForImportOutput](s, &GetParametersForImportInput{KeyID: keyID, WrappingAlgorithm: wrappingAlgorithm, WrappingKeySpec: spec})
}

// wrapFor encrypts material as its owner does.
func wrapFor(t testing.TB, p *GetParametersForImportOutput, material []byte) *ImportKeyMaterialInput {
	t.Helper()
	public, err := x509.ParsePKIXPublicKey(p.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), material, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &ImportKeyMaterialInput{KeyID: p.KeyID, ImportToken: p.ImportToken, EncryptedKeyMaterial: wrapped, ExpirationModel: materialForever}
}

func (s *store) prepareImport(keyID string, material []byte) *ImportKeyMaterialInput {
	s.t.Helper()
	return wrapFor(s.t, s.parameters(keyID, "RSA_2048"), material)
}

// external makes a key that waits for its material.
func (s *store) external() string {
	s.t.Helper()
	return must[CreateKeyOutput](s, &CreateKeyInput{Origin: originExternal}).KeyMetadata.ARN
}

func TestImportedMaterialIsUsedLostAndImportedAgain(t *testing.T) {
	s := newStore(t)
	arn := s.external()
	if m := s.describe(arn); m.KeyState != kmsprovider.StatePendingImport || m.Enabled || m.Origin != originExternal || m.CurrentKeyMaterialID != "" || m.ExpirationModel != "" {
		t.Errorf("before: %+v", m)
	}
	wantCode(t, "use before", s.try(&EncryptInput{KeyID: arn, Plaintext: []byte("x")}), codeInvalidState)
	in := s.prepareImport(arn, testMaterial(7))
	id := must[ImportKeyMaterialOutput](s, in).KeyMaterialID
	if m := s.describe(arn); m.KeyState != kmsprovider.StateEnabled || m.CurrentKeyMaterialID != id || m.ExpirationModel != materialForever || m.ValidTo != nil {
		t.Errorf("imported: %+v", m)
	}
	wrapped := s.encrypt(arn, "text", nil)

	must[DeleteImportedKeyMaterialOutput](s, &DeleteImportedKeyMaterialInput{KeyID: arn})
	wantCode(t, "use after deletion", s.opens(wrapped, "text", nil), codeInvalidState)
	must[DeleteImportedKeyMaterialOutput](s, &DeleteImportedKeyMaterialInput{KeyID: arn}) // has no effect
	if m := s.describe(arn); m.KeyState != kmsprovider.StatePendingImport {
		t.Errorf("deleted: %+v", m)
	}
	wantCode(t, "other material", s.try(s.prepareImport(arn, testMaterial(8))), "IncorrectKeyMaterialException")

	// The same token and ciphertext do for a second time, within its day.
	must[ImportKeyMaterialOutput](s, in)
	if err := s.another().opens(wrapped, "text", nil); err != nil {
		t.Errorf("imported again: %v", err)
	}
	list := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: arn, IncludeKeyMaterial: allMaterial}).Rotations
	if len(list) != 1 || list[0].KeyMaterialID != id || list[0].ImportState != stateImported || list[0].KeyMaterialState != "CURRENT" || list[0].RotationDate != nil {
		t.Errorf("materials: %+v", list)
	}
}

func TestTheSameMaterialHasAnIDForEachKey(t *testing.T) {
	s := newStore(t)
	a, b := s.external(), s.external()
	first := must[ImportKeyMaterialOutput](s, s.prepareImport(a, testMaterial(7)))
	second := must[ImportKeyMaterialOutput](s, s.prepareImport(b, testMaterial(7)))
	if first.KeyMaterialID == second.KeyMaterialID || len(first.KeyMaterialID) != 64 {
		t.Errorf("%s and %s", first.KeyMaterialID, second.KeyMaterialID)
	}
	// The blob names its key, so it opens under that alone.
	wrapped := s.encrypt(a, "text", nil)
	wantCode(t, "under the other key", s.try(&DecryptInput{KeyID: b, CiphertextBlob: wrapped}), codeIncorrectKey)
}

func TestImportedMaterialExpires(t *testing.T) {
	s := newStore(t)
	arn, disabledKey := s.external(), s.external()
	in := s.prepareImport(arn, testMaterial(7))
	in.ExpirationModel, in.ValidTo = "", timestamp(s.clock.now().Add(time.Hour)) // expiry is the default
	must[ImportKeyMaterialOutput](s, in)
	other := s.prepareImport(disabledKey, testMaterial(7))
	other.ExpirationModel, other.ValidTo = materialExpires, in.ValidTo
	must[ImportKeyMaterialOutput](s, other)
	must[struct{}](s, &DisableKeyInput{KeyID: disabledKey})
	if m := s.describe(arn); m.ExpirationModel != materialExpires || !m.ValidTo.Equal(in.ValidTo.Time) {
		t.Errorf("before: %+v", m)
	}
	wrapped := s.encrypt(arn, "text", nil)
	s.clock.pass(time.Hour - time.Microsecond)
	if err := s.opens(wrapped, "text", nil); err != nil {
		t.Errorf("the moment before: %v", err)
	}
	s.clock.pass(time.Microsecond)
	wantCode(t, "expired", s.opens(wrapped, "text", nil), codeInvalidState)
	for _, key := range []string{arn, disabledKey} {
		if m := s.describe(key); m.KeyState != kmsprovider.StatePendingImport || m.ExpirationModel != "" || m.ValidTo != nil {
			t.Errorf("after: %+v", m)
		}
	}
	if d := s.state.doc; len(d.Keys[0].Materials[0].Sealed) != 0 {
		t.Error("the material is still in the file")
	}
	in.ValidTo = timestamp(s.clock.now().Add(time.Hour))
	must[ImportKeyMaterialOutput](s, in)
	if err := s.opens(wrapped, "text", nil); err != nil {
		t.Errorf("imported again: %v", err)
	}
}

func TestImportsAreRefused(t *testing.T) {
	s := newStore(t)
	arn, other := s.external(), s.external()
	good := s.prepareImport(arn, testMaterial(7))
	change := func(edit func(*ImportKeyMaterialInput)) Input {
		in := *good
		edit(&in)
		return &in
	}
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"for another key":       {change(func(in *ImportKeyMaterialInput) { in.KeyID = other }), "InvalidImportTokenException"},
		"a changed token":       {change(func(in *ImportKeyMaterialInput) { in.ImportToken = append(bytes.Clone(in.ImportToken), 0) }), "InvalidImportTokenException"},
		"no token":              {change(func(in *ImportKeyMaterialInput) { in.ImportToken = nil }), codeValidation},
		"a changed material":    {change(func(in *ImportKeyMaterialInput) { in.EncryptedKeyMaterial = make([]byte, 256) }), codeInvalidCiphertext},
		"31 bytes":              {wrapFor(t, s.parameters(arn, "RSA_2048"), testMaterial(7)[:31]), "IncorrectKeyMaterialException"},
		"expiry without a date": {change(func(in *ImportKeyMaterialInput) { in.ExpirationModel = "" }), codeValidation},
		"a date without expiry": {change(func(in *ImportKeyMaterialInput) { in.ValidTo = timestamp(s.clock.now().Add(time.Hour)) }), codeValidation},
		"a date that is past":   {change(func(in *ImportKeyMaterialInput) { in.ExpirationModel = ""; in.ValidTo = timestamp(s.clock.now()) }), codeValidation},
		"a date after 366 days": {change(func(in *ImportKeyMaterialInput) {
			in.ExpirationModel = ""
			in.ValidTo = timestamp(s.clock.now().AddDate(0, 0, 366))
		}), codeValidation},
		"existing material that is none": {change(func(in *ImportKeyMaterialInput) { in.ImportType = existingMaterial }), "IncorrectKeyMaterialException"},
		"an unknown model":               {change(func(in *ImportKeyMaterialInput) { in.ExpirationModel = "NEVER" }), codeValidation},
		"PKCS #1 v1.5":                   {&GetParametersForImportInput{KeyID: arn, WrappingAlgorithm: "RSAES_PKCS1_V1_5", WrappingKeySpec: "RSA_2048"}, codeUnsupported},
		"an unknown algorithm":           {&GetParametersForImportInput{KeyID: arn, WrappingAlgorithm: "ROT13", WrappingKeySpec: "RSA_2048"}, codeValidation},
		"RSA of 1024 bits":               {&GetParametersForImportInput{KeyID: arn, WrappingAlgorithm: wrappingAlgorithm, WrappingKeySpec: "RSA_1024"}, codeValidation},
	} {
		wantCode(t, name, s.try(c.in), c.want)
	}
	if m := s.describe(arn); m.KeyState != kmsprovider.StatePendingImport {
		t.Errorf("%+v", m)
	}
	s.clock.pass(importToken - time.Second)
	must[ImportKeyMaterialOutput](s, good)
	wantCode(t, "new material", s.try(change(func(in *ImportKeyMaterialInput) { in.ImportType = newMaterial })), codeUnsupported)
	s.clock.pass(time.Second)
	wantCode(t, "a token of yesterday", s.try(good), "ExpiredImportTokenException")
}

func TestWrappingKeysOfAllSizesWork(t *testing.T) {
	for spec, bits := range wrappingBits {
		s := newStore(t)
		p := s.parameters(s.external(), spec)
		public, err := x509.ParsePKIXPublicKey(p.PublicKey)
		if err != nil || public.(*rsa.PublicKey).N.BitLen() != bits || !p.ParametersValidTo.Equal(s.clock.now().Add(24*time.Hour)) || len(p.ImportToken) > 6144 {
			t.Errorf("%s: %v, %d bytes of token", spec, err, len(p.ImportToken))
		}
		must[ImportKeyMaterialOutput](s, wrapFor(t, p, testMaterial(7)))
	}
}

func TestADisabledKeyStaysDisabledWhenItsMaterialIsImportedAgain(t *testing.T) {
	s := newStore(t)
	arn := s.external()
	in := s.prepareImport(arn, testMaterial(7))
	must[ImportKeyMaterialOutput](s, in)
	must[struct{}](s, &DisableKeyInput{KeyID: arn})
	must[ImportKeyMaterialOutput](s, in)
	if m := s.describe(arn); m.KeyState != kmsprovider.StateDisabled {
		t.Errorf("%+v", m)
	}
	// A deletion that is cancelled ends in PendingImport if the material is gone.
	must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: arn})
	must[DeleteImportedKeyMaterialOutput](s, &DeleteImportedKeyMaterialInput{KeyID: arn})
	if m := s.describe(arn); m.KeyState != kmsprovider.StatePendingDeletion {
		t.Errorf("%+v", m)
	}
	must[CancelKeyDeletionOutput](s, &CancelKeyDeletionInput{KeyID: arn})
	if m := s.describe(arn); m.KeyState != kmsprovider.StatePendingImport {
		t.Errorf("%+v", m)
	}
}

func TestAClosedKeystoreMakesNoImportToken(t *testing.T) {
	s := newStore(t)
	arn := s.external()
	in := &GetParametersForImportInput{KeyID: arn, WrappingAlgorithm: wrappingAlgorithm, WrappingKeySpec: "RSA_2048"}
	c := &call{k: s.Keystore, caller: s.Root(), in: in, op: in.operation(), now: s.timestamp()}
	var err error
	if c.state, err = s.acquire(context.Background()); err != nil {
		t.Fatal(err)
	}
	err = c.run()
	s.mu.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	s.Close() // while the RSA key is made
	if err := c.after(); err == nil {
		t.Error("made")
	}
}
