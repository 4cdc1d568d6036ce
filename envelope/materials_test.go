package envelope

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// never is a keyring that must not be asked.
var never = fakeKeyring{
	encrypt: func(*EncryptionMaterials) error { panic("asked") },
	decrypt: func(*DecryptionMaterials) error { panic("asked") },
}

func TestASignedMessageHasTheKeyOfItsSignature(t *testing.T) {
	s := newKeystore(t)
	ring := s.keyring(s.key())
	given := maps.Clone(someContext)
	m, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: SuiteCommitSigned, Context: given})
	if err != nil {
		t.Fatal(err)
	}
	point, err := base64.StdEncoding.DecodeString(m.Context["aws-crypto-public-key"])
	if err != nil || len(point) != 49 || point[0] != 2 && point[0] != 3 {
		t.Fatalf("public key %x (%v), want a compressed point of P-384", point, err)
	}
	if len(m.Context) != 3 || !maps.Equal(given, someContext) {
		t.Errorf("context %v of the given %v", m.Context, given)
	}
	d, err := decryptionMaterials(t.Context(), &Header{Suite: m.Suite, Context: m.Context, Keys: m.Keys}, DecryptOptions{Keyring: ring})
	if err != nil {
		t.Fatal(err)
	}
	if !d.VerifyKey.Equal(&m.SigningKey.PublicKey) || !bytes.Equal(d.DataKey, m.DataKey) {
		t.Error("another key of the signature, or another data key, came back")
	}
	// The KMS has seen the whole context.
	if _, err := unwrap(t, ring, SuiteCommitSigned, someContext, m.Keys...); err == nil {
		t.Error("the data key is not bound to the key of the signature")
	}

	m, err = encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: SuiteCommit, Context: given})
	if err != nil || m.SigningKey != nil || !maps.Equal(m.Context, someContext) {
		t.Errorf("unsigned: context %v, error %v", m.Context, err)
	}
}

func TestTheContextIsCheckedBeforeAnythingIsAsked(t *testing.T) {
	big := func(n int) kmsprovider.Context { // of n bytes as Check counts
		return kmsprovider.Context{"k": strings.Repeat("v", n-4-8-1)}
	}
	signature := 8 + len(publicKeyContext) + 68 // what a signature adds
	for _, c := range []struct {
		name     string
		suite    Suite
		ec       kmsprovider.Context
		required []string
		want     error
	}{
		{"reserved prefix", SuiteCommit, kmsprovider.Context{"aws-crypto-x": ""}, nil, ErrContext},
		{"the prefix alone", SuiteCommit, kmsprovider.Context{"aws-crypto-": ""}, nil, ErrContext},
		{"the key of a signature", SuiteCommitSigned, kmsprovider.Context{"aws-crypto-public-key": "x"}, nil, ErrContext},
		{"key not UTF-8", SuiteCommit, kmsprovider.Context{"\xff": ""}, nil, ErrContext},
		{"value not UTF-8", SuiteCommit, kmsprovider.Context{"k": "\xff"}, nil, ErrContext},
		{"8 KiB and one byte", SuiteCommit, big(8193), nil, ErrContext},
		{"with the signature", SuiteCommitSigned, big(8193 - signature), nil, ErrContext},
		{"required key without a pair", SuiteCommit, someContext, []string{"purpose", "other"}, ErrContext},
		{"required key of the signature", SuiteCommitSigned, someContext, []string{"aws-crypto-public-key"}, ErrContext},
		{"suite without commitment", SuiteAES256Signed, nil, nil, ErrCommitmentPolicy},
		{"no suite", 0, nil, nil, ErrCommitmentPolicy},
		{"good: nothing", SuiteCommit, nil, nil, nil},
		{"good: an empty pair", SuiteCommit, kmsprovider.Context{"": ""}, nil, nil},
		{"good: almost the prefix", SuiteCommit, kmsprovider.Context{"aws-crypto": "", "AWS-crypto-": ""}, nil, nil},
		{"good: 8 KiB", SuiteCommit, big(8192), nil, nil},
		{"good: 8 KiB with the signature", SuiteCommitSigned, big(8192 - signature), nil, nil},
	} {
		asked := false
		ring := fakeKeyring{encrypt: func(m *EncryptionMaterials) error { asked = true; return testAES(t, "a", 32).OnEncrypt(t.Context(), m) }}
		m, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: c.suite, Context: c.ec, RequiredContextKeys: c.required})
		if c.want == nil {
			if err != nil || !asked || len(m.Keys) != 1 {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		wantErrors(t, c.name, err, c.want)
		if asked || m != nil {
			t.Errorf("%s: the keyring was asked", c.name)
		}
	}
}

func TestAKMSTakesTheLargestContext(t *testing.T) {
	s := newKeystore(t)
	ring := s.keyring(s.key())
	ec := kmsprovider.Context{"k": strings.Repeat("v", 8192-4-8-1-(8+len(publicKeyContext)+68))}
	m, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: SuiteCommitSigned, Context: ec})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decryptionMaterials(t.Context(), &Header{Suite: m.Suite, Context: m.Context, Keys: m.Keys}, DecryptOptions{Keyring: ring}); err != nil {
		t.Error(err)
	}
}

func TestRequiredKeysAreSortedAndOnce(t *testing.T) {
	ec := kmsprovider.Context{"a": "1", "b": "2", "c": "3"}
	m, err := encryptionMaterials(t.Context(), EncryptOptions{
		Keyring: testAES(t, "a", 32), Suite: SuiteCommit, Context: ec, RequiredContextKeys: []string{"c", "a", "c"},
	})
	if err != nil || !slices.Equal(m.RequiredKeys, []string{"a", "c"}) || !maps.Equal(m.Context, ec) {
		t.Errorf("required %v of %v (%v)", m.RequiredKeys, m.Context, err)
	}
}

func TestWhatIsDemandedOfAContext(t *testing.T) {
	stored := kmsprovider.Context{"purpose": "test", "empty": "", "aws-crypto-public-key": "x"}
	type pairs = kmsprovider.Context
	for _, c := range []struct {
		name     string
		given    pairs
		keys     []string
		whole    pairs // what takes part; nil: refused
		required []string
	}{
		{"nothing", nil, nil, stored, nil},
		{"an equal pair", pairs{"purpose": "test"}, nil, stored, nil},
		{"an empty value", pairs{"empty": ""}, nil, stored, nil},
		{"another value", pairs{"purpose": "Test"}, nil, nil, nil},
		{"a value for an empty one", pairs{"empty": "x"}, nil, nil, nil},
		{"an empty value for one", pairs{"purpose": ""}, nil, nil, nil},
		{"a key that is there", nil, []string{"purpose", "empty"}, stored, nil},
		{"a key that is not", nil, []string{"purpose", "other"}, nil, nil},
		{"a key of another case", nil, []string{"Purpose"}, nil, nil},
		{"a pair that is not stored", pairs{"z": "1", "a": "2", "purpose": "test"}, nil,
			pairs{"purpose": "test", "empty": "", "aws-crypto-public-key": "x", "z": "1", "a": "2"}, []string{"a", "z"}},
		{"a key that is given beside", pairs{"a": "2"}, []string{"a"},
			pairs{"purpose": "test", "empty": "", "aws-crypto-public-key": "x", "a": "2"}, []string{"a"}},
		{"the key of the signature", pairs{"aws-crypto-public-key": "x"}, []string{"aws-crypto-public-key"}, stored, nil},
		{"another key of a signature", pairs{"aws-crypto-public-key": "y"}, nil, nil, nil},
		{"a reserved key that is not stored", pairs{"aws-crypto-other": "y"}, nil, nil, nil},
		{"a pair that is not UTF-8", pairs{"a": "\xff"}, nil, nil, nil},
		{"a pair that no message could store", pairs{"a": strings.Repeat("v", 65535)}, nil, nil, nil},
	} {
		before := maps.Clone(stored)
		whole, required, err := reproduceContext(stored, c.given, c.keys)
		if !maps.Equal(stored, before) {
			t.Fatalf("%s: the header was changed", c.name)
		}
		if c.whole == nil {
			wantErrors(t, c.name, err, ErrContext)
			continue
		}
		if err != nil || !maps.Equal(whole, c.whole) || !slices.Equal(required, c.required) {
			t.Errorf("%s: %v, of these %v not stored, error %v", c.name, whole, required, err)
		}
	}
}

// TestAPairThatIsNotStoredTakesPart goes all the way: the message has neither the key nor the value, and opens with the
// right pair alone, whoever wrapped the data key.
func TestAPairThatIsNotStoredTakesPart(t *testing.T) {
	s := newKeystore(t)
	type pairs = kmsprovider.Context
	for name, ring := range map[string]Keyring{"KMS": s.keyring(s.key()), "AES": testAES(t, "a", 32), "RSA": testRSA(t, "RSA-OAEP-SHA256")} {
		for _, suite := range []Suite{SuiteCommit, SuiteCommitSigned} {
			var message bytes.Buffer
			h, err := Encrypt(t.Context(), &message, bytes.NewReader(text(100)), EncryptOptions{
				Keyring: ring, Suite: suite, Context: pairs{"secretKey": "secretValue", "open": "1"}, RequiredContextKeys: []string{"secretKey"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(message.Bytes(), []byte("secretKey")) || bytes.Contains(message.Bytes(), []byte("secretValue")) || h.Context["open"] != "1" {
				t.Errorf("%s: the pair is in the message", name)
			}
			for what, given := range map[string]pairs{
				"right": {"secretKey": "secretValue"}, "wrong": {"secretKey": "other"}, "missing": nil, "more": {"secretKey": "secretValue", "x": ""},
			} {
				got, _, err := decrypt(message.Bytes(), DecryptOptions{Keyring: ring, Context: given})
				if what == "right" {
					if err != nil || !bytes.Equal(got, text(100)) {
						t.Errorf("%s, %s: %v", name, suite, err)
					}
					continue
				}
				if len(got) > 0 || err == nil || !errors.Is(err, ErrNoKey) && !errors.Is(err, ErrNotAuthentic) {
					t.Errorf("%s, %s, %s: %d bytes, error %v", name, suite, what, len(got), err)
				}
			}
			if _, _, err := decrypt(message.Bytes(), DecryptOptions{Keyring: ring, ContextKeys: []string{"secretKey"}}); !errors.Is(err, ErrContext) {
				t.Errorf("%s: the key alone is not enough to have it: %v", name, err)
			}
		}
	}
}

func TestACapOnWrappedKeysComesBeforeTheKMS(t *testing.T) {
	s := newKeystore(t)
	kms := s.keyring(s.key(), s.key())
	ring := NewMultiKeyring(kms, testAES(t, "a", 32))
	for limit, fits := range map[int]bool{0: true, 1: false, 2: false, 3: true, 4: true, 70000: true} {
		m, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: SuiteCommit, MaxDataKeys: limit})
		if fits {
			if err != nil || len(m.Keys) != 3 {
				t.Errorf("at most %d: %v", limit, err)
			}
			s.wantCalls("encryption", map[string]int{"GenerateDataKey": 1, "Encrypt": 1})
			_, err = decryptionMaterials(t.Context(), &Header{Suite: SuiteCommit, Keys: m.Keys}, DecryptOptions{Keyring: ring, MaxDataKeys: limit})
			if err != nil {
				t.Errorf("at most %d: %v", limit, err)
			}
			s.wantCalls("decryption", map[string]int{"Decrypt": 1})
			continue
		}
		wantErrors(t, fmt.Sprint("at most ", limit), err, ErrTooManyKeys)
		_, err = decryptionMaterials(t.Context(), &Header{Suite: SuiteCommit, Keys: make([]EncryptedDataKey, 3)}, DecryptOptions{Keyring: ring, MaxDataKeys: limit})
		wantErrors(t, fmt.Sprint("reading at most ", limit), err, ErrTooManyKeys)
		s.wantCalls("over the cap", map[string]int{})
	}
	// A keyring that does not say is checked afterwards, and so is the format's own limit.
	many := fakeKeyring{encrypt: func(m *EncryptionMaterials) error {
		m.DataKey, m.Keys = make([]byte, 32), make([]EncryptedDataKey, 65536)
		return nil
	}}
	_, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: many, Suite: SuiteCommit})
	wantErrors(t, "65,536 keys", err, ErrTooManyKeys)
}

func TestAPolicyThatRefusesAsksNoKMS(t *testing.T) {
	for _, p := range []CommitmentPolicy{RequireEncryptRequireDecrypt, ForbidEncryptAllowDecrypt} {
		_, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: never, Suite: SuiteAES256, Policy: p})
		wantErrors(t, p.String(), err, ErrCommitmentPolicy)
	}
	_, err := decryptionMaterials(t.Context(), &Header{Suite: SuiteAES256}, DecryptOptions{Keyring: never})
	wantErrors(t, "decryption", err, ErrCommitmentPolicy)
}

func TestMaterialsThatAreNotWholeAreRefused(t *testing.T) {
	for name, encrypt := range map[string]func(*EncryptionMaterials) error{
		"no data key": func(m *EncryptionMaterials) error { m.Keys = make([]EncryptedDataKey, 1); return nil },
		"a short data key": func(m *EncryptionMaterials) error {
			m.DataKey, m.Keys = make([]byte, 16), make([]EncryptedDataKey, 1)
			return nil
		},
		"no wrapped keys": func(m *EncryptionMaterials) error { m.DataKey = make([]byte, 32); return nil },
	} {
		if m, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: fakeKeyring{encrypt: encrypt}, Suite: SuiteCommit}); err == nil || m != nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, dataKey := range map[string][]byte{"no data key": nil, "a short data key": make([]byte, 16)} {
		ring := fakeKeyring{decrypt: func(m *DecryptionMaterials) error { m.DataKey = dataKey; return nil }}
		if m, err := decryptionMaterials(t.Context(), &Header{Suite: SuiteCommit}, DecryptOptions{Keyring: ring}); err == nil || m != nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := encryptionMaterials(t.Context(), EncryptOptions{Suite: SuiteCommit}); err == nil {
		t.Error("encrypts without a keyring")
	}
	if _, err := decryptionMaterials(t.Context(), &Header{Suite: SuiteCommit}, DecryptOptions{}); err == nil {
		t.Error("decrypts without a keyring")
	}
}

func TestADataKeyIsWipedWhereItIsNotUsed(t *testing.T) {
	secret := func() []byte { return bytes.Repeat([]byte{0xab}, 32) }
	wiped := func(name string, b []byte) {
		t.Helper()
		if !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s: the data key is still there", name)
		}
	}
	for name, second := range map[string]error{"the second keyring fails": errors.New("broken"), "over the cap afterwards": nil} {
		dataKey := secret()
		makes := fakeKeyring{encrypt: func(m *EncryptionMaterials) error {
			m.DataKey, m.Keys = dataKey, make([]EncryptedDataKey, 2)
			return nil
		}}
		ring := NewMultiKeyring(makes, fakeKeyring{encrypt: func(*EncryptionMaterials) error { return second }})
		if _, err := encryptionMaterials(t.Context(), EncryptOptions{Keyring: ring, Suite: SuiteCommit, MaxDataKeys: 1}); err == nil {
			t.Fatalf("%s: no error", name)
		}
		wiped(name, dataKey)
	}
	for name, suite := range map[string]Suite{"an error beside it": SuiteCommit, "of another length": SuiteAES128} {
		dataKey := secret()
		ring := fakeKeyring{decrypt: func(m *DecryptionMaterials) error {
			m.DataKey = dataKey
			if suite == SuiteCommit {
				return errors.New("broken")
			}
			return nil
		}}
		if _, err := decryptionMaterials(t.Context(), &Header{Suite: suite}, DecryptOptions{Keyring: ring, Policy: RequireEncryptAllowDecrypt}); err == nil {
			t.Fatalf("%s: no error", name)
		}
		wiped(name, dataKey)
	}
	e, d := &EncryptionMaterials{DataKey: secret()}, &DecryptionMaterials{DataKey: secret()}
	e.Wipe()
	d.Wipe()
	wiped("Wipe", append(e.DataKey, d.DataKey...))
}

// TestNoPrinterShowsAKey prints all that holds one, in all the ways that Go has.
func TestNoPrinterShowsAKey(t *testing.T) {
	key := []byte{0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0xa7, 0xb8, 0xc9, 0xda, 0xeb, 0xfc, 0xad, 0xbe, 0xcf, 0xd0}
	aes, err := newRawAES(rawName{"ns", "name"}, key)
	if err != nil {
		t.Fatal(err)
	}
	rsa := testRSA(t, "RSA-OAEP-SHA256")
	em, dm := EncryptionMaterials{DataKey: key}, DecryptionMaterials{DataKey: key}
	if em.SigningKey, err = newSigningKey(SuiteCommitSigned, make(kmsprovider.Context)); err != nil {
		t.Fatal(err)
	}
	scalar, err := em.SigningKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	secrets := [][]byte{key, scalar, rsa.private().Primes[0].Bytes()}
	var out strings.Builder
	for _, v := range []any{em, &em, dm, &dm, aes, rsa, NewMultiKeyring(aes, rsa), EncryptOptions{Keyring: aes}, DecryptOptions{Keyring: rsa},
		struct{ hidden Keyring }{aes}, struct{ hidden *rawRSA }{rsa}, []any{aes, em}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "% x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	all := strings.ToLower(out.String())
	for i, secret := range secrets {
		head := secret[:8]
		for _, spelling := range []string{
			string(head), fmt.Sprintf("%x", head), fmt.Sprintf("% x", head), strings.Trim(fmt.Sprint(head), "[]"),
			strings.TrimSuffix(fmt.Sprintf("%#v", head)[len("[]byte{"):], "}"), base64.StdEncoding.EncodeToString(head[:6]),
		} {
			if strings.Contains(all, strings.ToLower(spelling)) {
				t.Errorf("secret %d is shown as %.8q…", i, spelling)
			}
		}
	}
	if rsaDecimal := rsa.private().D.String(); strings.Contains(all, rsaDecimal[:20]) {
		t.Error("the private exponent is shown")
	}
}

func TestAnEndedContextMakesNoMaterials(t *testing.T) {
	s := newKeystore(t)
	ring := s.keyring(s.key())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := encryptionMaterials(ctx, EncryptOptions{Keyring: ring, Suite: SuiteCommit})
	wantErrors(t, "encryption", err, context.Canceled)
}
