package envelope

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"sync"
	"testing"

	"kmsfs/kmsprovider"
)

var (
	rsaKey      = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
	otherRSAKey = sync.OnceValue(func() *rsa.PrivateKey { return newRSA(2048) })
)

func newRSA(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

// testRSA is a private raw key "name" of "ns".
func testRSA(t testing.TB, algorithm string) *rawRSA { return rsaRing(t, algorithm, rsaKey()) }

func rsaRing(t testing.TB, algorithm string, key *rsa.PrivateKey) *rawRSA {
	t.Helper()
	padding, ok := rsaPaddings[algorithm]
	if !ok {
		t.Fatalf("no algorithm %s", algorithm)
	}
	return &rawRSA{rawName: rawName{"ns", "name"}, padding: padding, public: &key.PublicKey, private: func() *rsa.PrivateKey { return key }}
}

func TestAnRSAKeyWrapsDataKeysOfAllSuites(t *testing.T) {
	if len(rsaPaddings) != 5 {
		t.Fatalf("%d paddings", len(rsaPaddings))
	}
	for algorithm := range rsaPaddings {
		ring := testRSA(t, algorithm)
		public := &rawRSA{rawName: ring.rawName, padding: ring.padding, public: ring.public}
		for suite := range suites {
			m := &EncryptionMaterials{Suite: suite, Context: someContext}
			if err := public.OnEncrypt(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			if k := m.Keys[0]; k.Provider != "ns" || string(k.Info) != "name" || len(k.Ciphertext) != 256 {
				t.Errorf("wrapped key %s of %d bytes", k, len(k.Ciphertext))
			}
			got, err := unwrap(t, ring, suite, nil, m.Keys...) // the context is not bound to it
			if err != nil || !bytes.Equal(got, m.DataKey) {
				t.Errorf("%s, %s: %v", algorithm, suite, err)
			}
			_, err = unwrap(t, public, suite, nil, m.Keys...)
			wantErrors(t, "with the public key", err, ErrNoKey, kmsprovider.ErrNotUsable)
		}
	}
}

func TestAnRSAKeyOpensNoOtherPaddingOrKey(t *testing.T) {
	for algorithm, padding := range rsaPaddings {
		k := wrap(t, testRSA(t, algorithm), nil).Keys[0]
		for other, with := range rsaPaddings {
			if other == algorithm || with.newHash == nil {
				continue
			}
			_, err := unwrap(t, testRSA(t, other), SuiteCommit, nil, k)
			wantErrors(t, algorithm+" with "+other, err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
		}
		if padding.newHash == nil {
			continue
		}
		ring := testRSA(t, algorithm)
		good := wrap(t, ring, nil).Keys[0]
		_, err := unwrap(t, rsaRing(t, algorithm, otherRSAKey()), SuiteCommit, nil, good)
		wantErrors(t, "another key", err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
		for _, bad := range [][]byte{nil, good.Ciphertext[:255], append(bytes.Clone(good.Ciphertext), 0), bytes.Repeat([]byte{0xff}, 256), make([]byte, 256)} {
			_, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{"ns", []byte("name"), bad})
			wantErrors(t, "changed", err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
			if _, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{"ns", []byte("name"), bad}, good); err != nil {
				t.Errorf("a changed key stands in the way: %v", err)
			}
		}
		_, err = unwrap(t, ring, SuiteAES192, nil, good)
		wantErrors(t, "a suite of shorter keys", err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
	}
}

func TestAnRSAKeyPassesByWhatIsNotItsOwn(t *testing.T) {
	ring := testRSA(t, "RSA-OAEP-SHA256")
	k := wrap(t, ring, nil).Keys[0]
	for _, c := range []EncryptedDataKey{
		{"other", k.Info, k.Ciphertext}, {k.Provider, []byte("Name"), k.Ciphertext}, {k.Provider, []byte("name\x00\x00\x00\x80"), k.Ciphertext},
		{k.Provider, nil, k.Ciphertext}, {kmsProvider, k.Info, k.Ciphertext},
	} {
		_, err := unwrap(t, ring, SuiteCommit, nil, c)
		wantErrors(t, c.String(), err, ErrNoKey)
		if causes := causesOf(err); len(causes) != 0 {
			t.Errorf("%s: tried: %v", c, causes)
		}
	}
}

// TestPKCS1PaddingIsNoOracle: whatever was wrapped, and however it is padded, a data key comes out. Only the header tells
// that it is a wrong one, in the words that it has for every wrong key.
func TestPKCS1PaddingIsNoOracle(t *testing.T) {
	ring := testRSA(t, "RSA-PKCS1")
	wrapAny := func(b []byte) []byte {
		//lint:ignore SA1019 the message format has it
		c, err := rsa.EncryptPKCS1v15(rand.Reader, ring.public, b)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	good := wrap(t, ring, nil)
	changed := bytes.Clone(good.Keys[0].Ciphertext)
	changed[100] ^= 1
	for name, ciphertext := range map[string][]byte{
		"bad padding":   changed,
		"no padding":    make([]byte, 256),
		"another key":   wrap(t, rsaRing(t, "RSA-PKCS1", otherRSAKey()), nil).Keys[0].Ciphertext,
		"too short":     wrapAny(make([]byte, 31)),
		"too long":      wrapAny(make([]byte, 33)),
		"OAEP":          wrap(t, testRSA(t, "RSA-OAEP-SHA1"), nil).Keys[0].Ciphertext,
		"nothing in it": wrapAny(nil),
	} {
		if name == "another key" && bytes.Compare(ciphertext, rsaKey().N.Bytes()) >= 0 {
			ciphertext = make([]byte, 256) // over the modulus: seen without the private key
		}
		k := EncryptedDataKey{"ns", []byte("name"), ciphertext}
		one, err := unwrap(t, ring, SuiteCommit, nil, k)
		two, err2 := unwrap(t, ring, SuiteCommit, nil, k)
		if err != nil || err2 != nil || len(one) != 32 || len(two) != 32 || bytes.Equal(one, two) || bytes.Equal(one, make([]byte, 32)) {
			t.Errorf("%s: %d and %d bytes, the same: %v; errors %v, %v", name, len(one), len(two), bytes.Equal(one, two), err, err2)
		}
	}
	for _, bad := range [][]byte{nil, changed[:255], append(bytes.Clone(changed), 0)} { // its length is no secret
		_, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{"ns", []byte("name"), bad})
		wantErrors(t, "another length", err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
	}

	message := func(k Keyring) []byte {
		var b bytes.Buffer
		if _, err := Encrypt(t.Context(), &b, bytes.NewReader(text(10)), EncryptOptions{Keyring: k}); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	texts := make(map[string]string)
	for _, m := range []struct {
		name  string
		bytes []byte
	}{{"padding", message(ring)}, {"data key", message(ring)}} {
		at := bytes.Index(m.bytes, []byte("name")) + len("name") + 2
		if m.name == "padding" {
			m.bytes[at+100] ^= 1
		} else {
			copy(m.bytes[at:], wrapAny(bytes.Repeat([]byte{3}, 32)))
		}
		_, err := Decrypt(t.Context(), io.Discard, bytes.NewReader(m.bytes), DecryptOptions{Keyring: ring})
		wantErrors(t, m.name, err, ErrNotAuthentic)
		if errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %v", m.name, err)
		}
		texts[m.name] = err.Error()
	}
	if texts["padding"] != texts["data key"] {
		t.Errorf("%q", texts)
	}
}
