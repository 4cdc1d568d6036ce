package local

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// The files in testdata were written by the first version of the format. They
// are only ever added to: keystores of that time must open for good.
func TestAGoldenKeystoreOpensAndDecrypts(t *testing.T) {
	b, err := os.ReadFile("testdata/keystore-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile("testdata/wrapped-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := hex.DecodeString(strings.TrimSpace(string(blob)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	k := reopen(t, path)
	plaintext, err := k.Decrypt(t.Context(), DefaultAlias, wrapped, kmsprovider.Context{"kmsfs:volume": "golden", "a": ""})
	if err != nil || string(plaintext) != "golden" {
		t.Errorf("decrypt: %v", err)
	}
	keys, err := allKeys(t.Context(), k)
	if err != nil || len(keys) != 2 || keys[0].KeyManager != "SERVICE" || keys[1].Description != "second" || keys[1].Enabled {
		t.Errorf("keys: %+v, %v", keys, err)
	}
	if _, err := k.CreateKey(t.Context(), CreateKeyInput{}); err != nil {
		t.Errorf("create key: %v", err)
	}
}

// The second one has everything that the format can say.
func TestAGoldenKeystoreWithOneOfEverythingOpens(t *testing.T) {
	b, err := os.ReadFile("testdata/keystore-v1-all.json")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile("testdata/wrapped-v1-all.hex")
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := hex.DecodeString(strings.TrimSpace(string(blob)))
	if err != nil {
		t.Fatal(err)
	}
	s := &store{clock: newClock(), t: t}
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.Keystore, err = Open(t.Context(), s.clock.options(testOptions(path))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.opens(wrapped, "golden", kmsprovider.Context{"a": "b"}); err != nil {
		t.Error(err)
	}
	keys, err := allKeys(t.Context(), s.Keystore)
	if err != nil || len(keys) != 6 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	var states []string
	for _, m := range keys {
		states = append(states, m.KeyManager+" "+m.Origin+" "+m.KeyState)
	}
	want := []string{"SERVICE AWS_KMS Enabled", "CUSTOMER AWS_KMS Enabled", "CUSTOMER EXTERNAL Enabled", "CUSTOMER EXTERNAL PendingImport", "CUSTOMER EXTERNAL PendingImport", "CUSTOMER AWS_KMS PendingDeletion"}
	if !slices.Equal(states, want) {
		t.Errorf("%v", states)
	}
	own := keys[1].ARN
	grants := must[ListGrantsOutput](s, &ListGrantsInput{KeyID: own}).Grants
	tags := must[ListResourceTagsOutput](s, &ListResourceTagsInput{KeyID: own}).Tags
	rotations := must[ListKeyRotationsOutput](s, &ListKeyRotationsInput{KeyID: own}).Rotations
	status := must[GetKeyRotationStatusOutput](s, &GetKeyRotationStatusInput{KeyID: own})
	policy := must[GetKeyPolicyOutput](s, &GetKeyPolicyInput{KeyID: own}).Policy
	if len(grants) != 1 || grants[0].Name != "nightly" || len(tags) != 2 || len(rotations) != 1 || status.RotationPeriodInDays != 180 || !strings.Contains(policy, "Deny") {
		t.Errorf("%+v, %+v, %+v, %+v, %s", grants, tags, rotations, status, policy)
	}
	principals := must[ListPrincipalsOutput](s, &ListPrincipalsInput{}).Principals
	if len(principals) != 1 || principals[0].PrincipalName != "ci" {
		t.Fatalf("%+v", principals)
	}
	if c, secret, err := s.Principal(t.Context(), principals[0].AccessKeyID); err != nil || len(secret) != secretSize || c.ARN != principals[0].ARN {
		t.Errorf("%+v, %v", c, err)
	}
	// What was imported is known again: the ID follows from the keystore's key.
	must[ImportKeyMaterialOutput](s, s.prepareImport(keys[3].ARN, testMaterial(2)))
	wantCode(t, "other material", s.try(s.prepareImport(keys[3].ARN, testMaterial(1))), "IncorrectKeyMaterialException")
}
