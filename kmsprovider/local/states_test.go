package local

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// What each operation on a key answers in each state of it, as the page "Key
// states" of AWS KMS's developer guide has it. + is success, D DisabledException,
// S KMSInvalidStateException, U UnsupportedOperationException: the operation is
// not for a key of that origin. For the keys of origin AWS_KMS: enabled,
// disabled, pending deletion; for those of origin EXTERNAL: the same and pending
// import.
var stateTable = map[string]string{
	"CancelKeyDeletion":               "SS+ SS+S",
	"CreateAlias":                     "++S ++S+",
	"CreateGrant":                     "+DS +DSS",
	"Decrypt":                         "+DS +DSS",
	"DeleteAlias":                     "+++ ++++",
	"DeleteImportedKeyMaterial":       "UUU ++++",
	"DescribeKey":                     "+++ ++++",
	"DisableKey":                      "++S ++SS",
	"DisableKeyRotation":              "+DS UUUU",
	"EnableKey":                       "++S ++SS",
	"EnableKeyRotation":               "+DS UUUU",
	"Encrypt":                         "+DS +DSS",
	"GenerateDataKey":                 "+DS +DSS",
	"GenerateDataKeyWithoutPlaintext": "+DS +DSS",
	"GetKeyPolicy":                    "+++ ++++",
	"GetKeyRotationStatus":            "+++ UUUU",
	"GetParametersForImport":          "UUU ++S+",
	"ImportKeyMaterial":               "UUU ++S+",
	"ListAliases":                     "+++ ++++",
	"ListGrants":                      "+++ ++++",
	"ListKeyPolicies":                 "+++ ++++",
	"ListKeyRotations":                "+++ ++++",
	"ListResourceTags":                "+++ ++++",
	"PutKeyPolicy":                    "+++ ++++",
	"ReEncrypt from":                  "+DS +DSS",
	"ReEncrypt to":                    "+DS +DSS",
	"RetireGrant":                     "+++ ++++",
	"RevokeGrant":                     "+++ ++++",
	"RotateKeyOnDemand":               "+DS UUUU",
	"ScheduleKeyDeletion":             "++S ++S+",
	"TagResource":                     "++S ++S+",
	"UntagResource":                   "++S ++S+",
	"UpdateAlias from":                "+++ ++++", // the key that loses the alias
	"UpdateAlias to":                  "++S ++S+",
	"UpdateKeyDescription":            "++S ++S+",
}

// notOnKeys are the operations that the table has no row for.
var notOnKeys = []string{
	"CreateKey", "CreatePrincipal", "DeletePrincipal", "EnsureDefaultKey", "GenerateRandom", "GetPrincipalPolicy", "ListKeys",
	"ListPrincipals", "ListRetirableGrants", "PutPrincipalPolicy",
}

// stated is a key in a state, and what was made with it while it was enabled.
type stated struct {
	store        *store
	arn, other   string
	wrapped      []byte
	otherWrapped []byte
	grant        string
	importing    *ImportKeyMaterialInput
}

// statedKeys makes keys in the states of the table, in its order.
func statedKeys(t *testing.T) []*stated {
	s := newStore(t)
	material := testMaterial(1)
	var all []*stated
	for _, origin := range []string{originKMS, originExternal} {
		for _, state := range []string{kmsprovider.StateEnabled, kmsprovider.StateDisabled, kmsprovider.StatePendingDeletion, kmsprovider.StatePendingImport} {
			if origin == originKMS && state == kmsprovider.StatePendingImport {
				continue
			}
			k := &stated{store: s, arn: must[CreateKeyOutput](s, &CreateKeyInput{Origin: origin}).KeyMetadata.ARN, other: s.key()}
			if origin == originExternal {
				k.importing = s.prepareImport(k.arn, material)
				must[ImportKeyMaterialOutput](s, k.importing)
			}
			k.wrapped, k.otherWrapped = s.encrypt(k.arn, "text", nil), s.encrypt(k.other, "text", nil)
			k.grant = must[CreateGrantOutput](s, &CreateGrantInput{KeyID: k.arn, GranteePrincipal: s.Root().ARN, Operations: []string{"Decrypt"}}).GrantID
			must[struct{}](s, &CreateAliasInput{AliasName: k.alias(k.arn), TargetKeyID: k.arn})
			must[struct{}](s, &CreateAliasInput{AliasName: k.alias(k.other), TargetKeyID: k.other})
			switch state {
			case kmsprovider.StateDisabled:
				must[struct{}](s, &DisableKeyInput{KeyID: k.arn})
			case kmsprovider.StatePendingDeletion:
				must[ScheduleKeyDeletionOutput](s, &ScheduleKeyDeletionInput{KeyID: k.arn})
			case kmsprovider.StatePendingImport:
				must[DeleteImportedKeyMaterialOutput](s, &DeleteImportedKeyMaterialInput{KeyID: k.arn})
			}
			if got := s.describe(k.arn).KeyState; got != state {
				t.Fatalf("the key is %s, want %s", got, state)
			}
			all = append(all, k)
		}
	}
	return all
}

// copied are the same keys in a keystore of their own.
func copied(t *testing.T, all []*stated) []*stated {
	t.Helper()
	b, err := os.ReadFile(all[0].store.Path())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &store{clock: all[0].store.clock, t: t}
	if s.Keystore, err = Open(context.Background(), s.clock.options(testOptions(path))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var copies []*stated
	for _, k := range all {
		c := *k
		c.store = s
		copies = append(copies, &c)
	}
	return copies
}

func (k *stated) alias(arn string) string { return "alias/" + arn[strings.LastIndexByte(arn, '/')+1:] }

// input makes the call of a row of the table.
func (k *stated) input(row string) Input {
	switch row {
	case "CreateAlias":
		return &CreateAliasInput{AliasName: k.alias(k.arn) + "-new", TargetKeyID: k.arn}
	case "CreateGrant":
		return &CreateGrantInput{KeyID: k.arn, GranteePrincipal: k.store.Root().ARN, Operations: []string{"Encrypt"}}
	case "Decrypt":
		return &DecryptInput{CiphertextBlob: k.wrapped}
	case "DeleteAlias":
		return &DeleteAliasInput{AliasName: k.alias(k.arn)}
	case "Encrypt":
		return &EncryptInput{KeyID: k.arn, Plaintext: []byte("x")}
	case "GenerateDataKey":
		return &GenerateDataKeyInput{KeyID: k.arn, KeySpec: "AES_256"}
	case "GenerateDataKeyWithoutPlaintext":
		return &GenerateDataKeyWithoutPlaintextInput{KeyID: k.arn, KeySpec: "AES_256"}
	case "GetParametersForImport":
		return &GetParametersForImportInput{KeyID: k.arn, WrappingAlgorithm: wrappingAlgorithm, WrappingKeySpec: "RSA_2048"}
	case "ImportKeyMaterial":
		if k.importing == nil {
			return &ImportKeyMaterialInput{KeyID: k.arn, ImportToken: []byte("x"), EncryptedKeyMaterial: []byte("x"), ExpirationModel: materialForever}
		}
		return k.importing
	case "PutKeyPolicy":
		return &PutKeyPolicyInput{KeyID: k.arn, Policy: must[GetKeyPolicyOutput](k.store, &GetKeyPolicyInput{KeyID: k.other}).Policy}
	case "ReEncrypt from":
		return &ReEncryptInput{CiphertextBlob: k.wrapped, DestinationKeyID: k.other}
	case "ReEncrypt to":
		return &ReEncryptInput{CiphertextBlob: k.otherWrapped, DestinationKeyID: k.arn}
	case "RetireGrant":
		return &RetireGrantInput{KeyID: k.arn, GrantID: k.grant}
	case "RevokeGrant":
		return &RevokeGrantInput{KeyID: k.arn, GrantID: k.grant}
	case "TagResource":
		return &TagResourceInput{KeyID: k.arn, Tags: []Tag{{"a", "b"}}}
	case "UntagResource":
		return &UntagResourceInput{KeyID: k.arn, TagKeys: []string{"a"}}
	case "UpdateAlias from":
		return &UpdateAliasInput{AliasName: k.alias(k.arn), TargetKeyID: k.other}
	case "UpdateAlias to":
		return &UpdateAliasInput{AliasName: k.alias(k.other), TargetKeyID: k.arn}
	}
	in, _ := NewInput(row)
	setKeyID(in, k.arn)
	return in
}

func TestEachOperationAnswersEachStateAsKMSDocumentsIt(t *testing.T) {
	codes := map[byte]string{'+': "", 'D': codeDisabled, 'S': codeInvalidState, 'U': codeUnsupported}
	names := make(map[string]bool)
	keys := statedKeys(t)
	for row, columns := range stateTable {
		operation, _, _ := strings.Cut(row, " ")
		names[operation] = true
		t.Run(row, func(t *testing.T) {
			for i, k := range copied(t, keys) {
				want := codes[strings.ReplaceAll(columns, " ", "")[i]]
				m := k.store.describe(k.arn)
				wantCode(t, m.Origin+" "+m.KeyState, k.store.try(k.input(row)), want)
			}
		})
	}
	all := append(slices.Collect(maps.Keys(names)), notOnKeys...)
	slices.Sort(all)
	if !slices.Equal(all, Operations()) {
		t.Errorf("the table is of %v, the operations are %v", all, Operations())
	}
}

func TestAKeyThatKMSFSManagesCanBeDisabledAndNotChanged(t *testing.T) {
	s := newStore(t)
	arn, err := s.EnsureDefaultKey(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	own := s.key()
	for _, in := range []Input{
		&ScheduleKeyDeletionInput{KeyID: arn}, &CancelKeyDeletionInput{KeyID: arn},
		&EnableKeyRotationInput{KeyID: arn}, &DisableKeyRotationInput{KeyID: arn}, &RotateKeyOnDemandInput{KeyID: arn},
		&UpdateKeyDescriptionInput{KeyID: arn}, &TagResourceInput{KeyID: arn}, &UntagResourceInput{KeyID: arn},
		&PutKeyPolicyInput{KeyID: arn, Policy: must[GetKeyPolicyOutput](s, &GetKeyPolicyInput{KeyID: arn}).Policy},
		&DeleteAliasInput{AliasName: DefaultAlias}, &UpdateAliasInput{AliasName: DefaultAlias, TargetKeyID: own},
		&CreateAliasInput{AliasName: "alias/other", TargetKeyID: arn},
	} {
		wantCode(t, OperationOf(in), s.try(in), codeAccessDenied)
	}
	if m := s.describe(DefaultAlias); m.ARN != arn || !m.Enabled {
		t.Errorf("%+v", m)
	}
	must[struct{}](s, &DisableKeyInput{KeyID: arn})
	wantCode(t, "use while disabled", s.try(encryptUnder(arn, nil)), codeDisabled)
	must[struct{}](s, &EnableKeyInput{KeyID: arn})
	if err := s.opens(s.encrypt(DefaultAlias, "text", nil), "text", nil); err != nil {
		t.Error(err)
	}
}

func TestOperationsThatThereAreNotAreRefusedClearly(t *testing.T) {
	for name, want := range map[string]string{"Sign": codeUnsupported, "GenerateDataKeyPair": codeUnsupported, "ReplicateKey": codeUnsupported, "Frobnicate": "UnknownOperationException", "": "UnknownOperationException"} {
		if _, ok := NewInput(name); ok {
			t.Errorf("%q has an input", name)
		}
		wantCode(t, name, UnknownOperation(name), want)
	}
	for name, want := range map[string]bool{"CreatePrincipal": true, "EnsureDefaultKey": true, "Encrypt": false, "Frobnicate": false} {
		if IsOwn(name) != want {
			t.Errorf("%s: own %t", name, !want)
		}
	}
}
