package envelope

import (
	"bytes"
	"crypto/rand"
	"slices"
	"testing"

	"kmsfs/kmsprovider"
)

// testAES is a raw AES key of size bytes, always the same, by a name of the namespace ns.
func testAES(t testing.TB, name string, size int) Keyring {
	t.Helper()
	k, err := newRawAES(rawName{"ns", name}, bytes.Repeat([]byte{byte(size)}, size))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAnAESKeyWrapsDataKeysOfAllSuites(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		for suite := range suites {
			for _, ec := range []kmsprovider.Context{nil, someContext} {
				m := &EncryptionMaterials{Suite: suite, Context: ec}
				if err := testAES(t, "name", size).OnEncrypt(t.Context(), m); err != nil {
					t.Fatal(err)
				}
				if len(m.DataKey) != suite.KeySize() || bytes.Equal(m.DataKey, make([]byte, len(m.DataKey))) {
					t.Fatalf("data key of %d bytes", len(m.DataKey))
				}
				// name, tag length in bits, IV length, IV; and the key with its tag.
				k, head := m.Keys[0], []byte("name\x00\x00\x00\x80\x00\x00\x00\x0c")
				if k.Provider != "ns" || !bytes.HasPrefix(k.Info, head) || len(k.Info) != len(head)+12 || len(k.Ciphertext) != suite.KeySize()+16 {
					t.Errorf("wrapped key %q, %q, %d bytes", k.Provider, k.Info, len(k.Ciphertext))
				}
				got, err := unwrap(t, testAES(t, "name", size), suite, ec, k)
				if err != nil || !bytes.Equal(got, m.DataKey) {
					t.Errorf("AES %d, %s: %v", size, suite, err)
				}
			}
		}
	}
}

func TestEveryIVOfAnAESKeyIsAnother(t *testing.T) {
	ring, seen := testAES(t, "name", 32), make(map[string]bool)
	for range 100 {
		m := wrap(t, ring, nil)
		seen[string(m.Keys[0].Info[len(m.Keys[0].Info)-12:])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d IVs in 100 wrapped keys", len(seen))
	}
}

func TestAnAESKeyPassesByWhatIsNotItsOwn(t *testing.T) {
	ring := testAES(t, "name", 32)
	k := wrap(t, ring, someContext).Keys[0]
	for name, change := range map[string]func(*EncryptedDataKey){
		"another namespace":       func(k *EncryptedDataKey) { k.Provider = "NS" },
		"another name":            func(k *EncryptedDataKey) { k.Info[0] = 'N' },
		"a longer name":           func(k *EncryptedDataKey) { k.Info = slices.Insert(k.Info, 4, 'x') },
		"a shorter name":          func(k *EncryptedDataKey) { k.Info = k.Info[1:] },
		"a name alone, as RSA's":  func(k *EncryptedDataKey) { k.Info = []byte("name") },
		"no name":                 func(k *EncryptedDataKey) { k.Info = nil },
		"the namespace of a KMS":  func(k *EncryptedDataKey) { k.Provider = kmsProvider },
		"an IV of another length": func(k *EncryptedDataKey) { k.Info = append(k.Info, 0) },
	} {
		c := EncryptedDataKey{k.Provider, bytes.Clone(k.Info), k.Ciphertext}
		change(&c)
		_, err := unwrap(t, ring, SuiteCommit, someContext, c)
		wantErrors(t, name, err, ErrNoKey)
		if causes := causesOf(err); len(causes) != 0 {
			t.Errorf("%s: tried: %v", name, causes)
		}
		// It does not stand in the way.
		if _, err := unwrap(t, ring, SuiteCommit, someContext, c, k); err != nil {
			t.Errorf("%s stands in the way: %v", name, err)
		}
	}
}

func TestAnAESKeyOpensNothingChanged(t *testing.T) {
	ring := testAES(t, "name", 32)
	k := wrap(t, ring, someContext).Keys[0]
	refused := func(what string, ring Keyring, ec kmsprovider.Context, c EncryptedDataKey) {
		t.Helper()
		_, err := unwrap(t, ring, SuiteCommit, ec, c)
		wantErrors(t, what, err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
		if _, err := unwrap(t, ring, SuiteCommit, ec, c, k); ec == nil && err != nil {
			t.Errorf("%s stands in the way: %v", what, err)
		}
	}
	for i := 4; i < len(k.Info); i++ { // tag length, IV length, IV
		c := EncryptedDataKey{k.Provider, bytes.Clone(k.Info), k.Ciphertext}
		c.Info[i] ^= 1
		refused("info", ring, someContext, c)
	}
	for i := range k.Ciphertext {
		c := EncryptedDataKey{k.Provider, k.Info, bytes.Clone(k.Ciphertext)}
		c.Ciphertext[i] ^= 1
		refused("ciphertext", ring, someContext, c)
		c.Ciphertext = k.Ciphertext[:i]
		refused("shorter ciphertext", ring, someContext, c)
	}
	refused("longer ciphertext", ring, someContext, EncryptedDataKey{k.Provider, k.Info, append(bytes.Clone(k.Ciphertext), 0)})
	refused("another context", ring, kmsprovider.Context{"purpose": "other", "empty": ""}, k)
	refused("part of the context", ring, kmsprovider.Context{"purpose": "test"}, k)
	refused("another key of the name", testAES(t, "name", 16), someContext, k)
	if _, err := unwrap(t, ring, SuiteAES128, someContext, k); err == nil {
		t.Error("a data key of 32 bytes for a suite of 16")
	}
}

func TestARawKeyWrapsADataKeyThatIsThere(t *testing.T) {
	dataKey := make([]byte, 32)
	if _, err := rand.Read(dataKey); err != nil {
		t.Fatal(err)
	}
	for _, ring := range []Keyring{testAES(t, "name", 32), testRSA(t, "RSA-OAEP-SHA256"), testRSA(t, "RSA-PKCS1")} {
		m := &EncryptionMaterials{Suite: SuiteCommit, DataKey: bytes.Clone(dataKey)}
		if err := ring.OnEncrypt(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got, err := unwrap(t, ring, SuiteCommit, nil, m.Keys...)
		if err != nil || !bytes.Equal(got, dataKey) || !bytes.Equal(m.DataKey, dataKey) {
			t.Errorf("%v: another data key, or %v", ring, err)
		}
	}
}
