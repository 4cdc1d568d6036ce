package envelope

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"kmsfs/kmsprovider"
)

// fakeKeyring does what a test says.
type fakeKeyring struct {
	encrypt func(*EncryptionMaterials) error
	decrypt func(*DecryptionMaterials) error
}

func (f fakeKeyring) OnEncrypt(_ context.Context, m *EncryptionMaterials) error { return f.encrypt(m) }

func (f fakeKeyring) OnDecrypt(_ context.Context, m *DecryptionMaterials, _ []EncryptedDataKey) error {
	return f.decrypt(m)
}

func TestAllKeyringsWrapOneDataKeyAndEachOpensIt(t *testing.T) {
	s := newKeystore(t)
	kms, raw := s.keyring(s.key(), s.key()), testAES(t, "a", 32)
	for _, c := range []struct {
		name     string
		ring     Keyring
		want     map[string]int
		decrypts int // of the three that open: kms alone, raw alone, both
	}{
		{"a KMS makes it", NewMultiKeyring(kms, raw), map[string]int{"GenerateDataKey": 1, "Encrypt": 1}, 2},
		{"a raw key makes it", NewMultiKeyring(raw, kms), map[string]int{"Encrypt": 2}, 1},
	} {
		m := wrap(t, c.ring, someContext)
		s.wantCalls(c.name, c.want)
		if n := wraps(c.ring); n != 3 || len(m.Keys) != n {
			t.Errorf("%s: %d wrapped keys, announced were %d", c.name, len(m.Keys), n)
		}
		for _, ring := range []Keyring{kms, raw, c.ring} {
			dataKey, err := unwrap(t, ring, SuiteCommit, someContext, m.Keys...)
			if err != nil || !bytes.Equal(dataKey, m.DataKey) {
				t.Errorf("%s: opens to another data key (%v)", c.name, err)
			}
		}
		s.wantCalls(c.name, map[string]int{"Decrypt": c.decrypts})
	}
}

func TestWithoutAGeneratorThereMustBeADataKey(t *testing.T) {
	ring := NewMultiKeyring(nil, testAES(t, "a", 16), testAES(t, "b", 24))
	if err := ring.OnEncrypt(t.Context(), &EncryptionMaterials{Suite: SuiteCommit}); err == nil {
		t.Error("somebody made one")
	}
	m := &EncryptionMaterials{Suite: SuiteCommit, DataKey: bytes.Repeat([]byte{1}, 32)}
	if err := ring.OnEncrypt(t.Context(), m); err != nil || len(m.Keys) != 2 {
		t.Errorf("error %v, %d wrapped keys", err, len(m.Keys))
	}
}

func TestAKeyringThatFailsFailsEncryption(t *testing.T) {
	broken := errors.New("broken")
	ring := NewMultiKeyring(testAES(t, "a", 32), fakeKeyring{encrypt: func(*EncryptionMaterials) error { return broken }}, testAES(t, "b", 32))
	m := &EncryptionMaterials{Suite: SuiteCommit}
	wantErrors(t, "encryption", ring.OnEncrypt(t.Context(), m), broken)
	if len(m.Keys) != 1 {
		t.Errorf("%d wrapped keys: the third keyring was asked", len(m.Keys))
	}
	lazy := NewMultiKeyring(fakeKeyring{encrypt: func(*EncryptionMaterials) error { return nil }}, testAES(t, "b", 32))
	if err := lazy.OnEncrypt(t.Context(), &EncryptionMaterials{Suite: SuiteCommit}); err == nil {
		t.Error("a generator that makes no data key passes")
	}
}

func TestTheCausesOfAllKeyringsAreTold(t *testing.T) {
	fails := func(err error) Keyring {
		return fakeKeyring{decrypt: func(*DecryptionMaterials) error { return &noKeyError{[]error{err}} }}
	}
	ring := NewMultiKeyring(fails(kmsprovider.ErrAccessDenied), NewMultiKeyring(nil, fails(kmsprovider.ErrKeyDisabled), fails(kmsprovider.ErrThrottled)))
	_, err := unwrap(t, ring, SuiteCommit, nil)
	wantErrors(t, "all", err, ErrNoKey, kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrThrottled)
	if want := "no data key could be opened: access denied by the KMS; KMS key is disabled; throttled by the KMS"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	// What is not about keys ends the search.
	ring = NewMultiKeyring(fakeKeyring{decrypt: func(*DecryptionMaterials) error { return context.Canceled }},
		fakeKeyring{decrypt: func(*DecryptionMaterials) error { panic("asked") }})
	_, err = unwrap(t, ring, SuiteCommit, nil)
	wantErrors(t, "the context's", err, context.Canceled)
}
