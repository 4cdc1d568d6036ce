package envelope

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
)

// keyFile makes a file that its owner alone can use.
func keyFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func rawSpec(algorithm, path string) string {
	return "namespace=ns,name=name,algorithm=" + algorithm + ",file=" + path
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func mustDER(t testing.TB) func([]byte, error) []byte {
	return func(der []byte, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
}

func TestAnAESKeyFileHasTheKeyAndNothingElse(t *testing.T) {
	for size := range 40 {
		k, err := ParseRawKey(rawSpec("AES", keyFile(t, bytes.Repeat([]byte{byte(size)}, size))))
		if size != 16 && size != 24 && size != 32 {
			wantErrors(t, fmt.Sprint(size, " bytes"), err, kmsprovider.ErrInvalidInput)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m := wrap(t, k, someContext)
		if _, err := unwrap(t, testAES(t, "name", size), SuiteCommit, someContext, m.Keys...); err != nil {
			t.Errorf("%d bytes: another key came out of the file: %v", size, err)
		}
	}
}

func TestAnRSAKeyFileIsPublicOrPrivate(t *testing.T) {
	der, key := mustDER(t), rsaKey()
	public := [][]byte{
		pemOf("PUBLIC KEY", der(x509.MarshalPKIXPublicKey(&key.PublicKey))),
		pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&key.PublicKey)),
	}
	private := [][]byte{
		pemOf("PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(key))),
		pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		append([]byte("a comment\n"), pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))...),
	}
	for algorithm := range rsaPaddings {
		var rings []Keyring
		for _, content := range append(public, private...) {
			ring, err := ParseRawKey(rawSpec(algorithm, keyFile(t, content)))
			if err != nil {
				t.Fatal(err)
			}
			rings = append(rings, ring)
		}
		for _, from := range rings {
			m := wrap(t, from, nil)
			for i, to := range rings {
				got, err := unwrap(t, to, SuiteCommit, nil, m.Keys...)
				switch {
				case i < len(public):
					wantErrors(t, "public key", err, ErrNoKey, kmsprovider.ErrNotUsable)
				case err != nil || !bytes.Equal(got, m.DataKey):
					t.Errorf("%s, file %d: %v", algorithm, i, err)
				}
			}
		}
	}
}

func TestBadKeyFilesAreNamed(t *testing.T) {
	der := mustDER(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := der(x509.MarshalPKCS8PrivateKey(rsaKey()))
	// The generator refuses shorter keys than 1024 bits.
	short := newRSA(1024)
	for name, c := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":            {nil, "not PEM"},
		"DER":              {pkcs8, "not PEM"},
		"cut":              {pemOf("PRIVATE KEY", pkcs8)[:500], "not PEM"},
		"certificate":      {pemOf("CERTIFICATE", pkcs8), `"CERTIFICATE"`},
		"OpenSSH":          {pemOf("OPENSSH PRIVATE KEY", pkcs8), `"OPENSSH PRIVATE KEY"`},
		"another label":    {pemOf("RSA PRIVATE KEY", pkcs8), "rsa private key"},
		"garbage":          {pemOf("PUBLIC KEY", []byte("garbage")), "public key"},
		"elliptic curve":   {pemOf("PRIVATE KEY", der(x509.MarshalPKCS8PrivateKey(ec))), "not of RSA"},
		"its public key":   {pemOf("PUBLIC KEY", der(x509.MarshalPKIXPublicKey(&ec.PublicKey))), "not of RSA"},
		"two keys":         {append(pemOf("PRIVATE KEY", pkcs8), pemOf("PRIVATE KEY", pkcs8)...), "more than one"},
		"under passphrase": {pemOf("ENCRYPTED PRIVATE KEY", pkcs8), "passphrase"},
		"of old":           {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"DEK-Info": "AES-128-CBC,00"}, Bytes: pkcs8}), "passphrase"},
		"1024 bits":        {pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(short)), "1024 bits"},
		"1024 bits public": {pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&short.PublicKey)), "1024 bits"},
		"2047 bits":        {pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(publicOf2047Bits())), "2047 bits"},
		"too large":        {bytes.Repeat([]byte("-"), maxKeyFile+1), "over 65536 bytes"},
	} {
		path := keyFile(t, c.content)
		ring, err := ParseRawKey(rawSpec("RSA-OAEP-SHA256", path))
		wantErrors(t, name, err, kmsprovider.ErrInvalidInput)
		if ring != nil || err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q and the path in it", name, err, c.want)
		}
	}
	if _, err := ParseRawKey(rawSpec("AES", filepath.Join(t.TempDir(), "missing"))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := ParseRawKey(rawSpec("AES", t.TempDir())); err == nil {
		t.Error("a directory is a key")
	}
}

// publicOf2047Bits is a modulus of 2047 bits that nobody can open, which takes no time to find.
func publicOf2047Bits() *rsa.PublicKey {
	k := rsa.PublicKey{N: rsaKey().N, E: 65537}
	n := newRSA(1024).N
	k.N = n.Lsh(n, 1023).SetBit(n, 0, 1)
	return &k
}

func TestBadRawKeySpecsAreNamed(t *testing.T) {
	path := keyFile(t, make([]byte, 32))
	for spec, want := range map[string]string{
		"":                                  "want namespace=NS",
		"namespace":                         `"namespace" is none of`,
		"name=a,b":                          `"b" is none of`,
		"key=a":                             `"key=a" is none of`,
		"NAME=a":                            `"NAME=a" is none of`,
		"name=a,name=b":                     "name stands there twice",
		"name=,name=b":                      "name is empty",
		"namespace=ns,name=n,algorithm=AES": "file=… is missing",
		"name=n,algorithm=AES,file=" + path: "namespace=… is missing",
		"namespace=ns,algorithm=AES,file=" + path:                                         "name=… is missing",
		"namespace=ns,name=n,file=" + path:                                                "algorithm=… is missing",
		"namespace=aws-kms,name=n,algorithm=AES,file=" + path:                             "keys of AWS KMS",
		"namespace=ns,name=n,algorithm=aes,file=" + path:                                  `algorithm "aes" is none of`,
		"namespace=ns,name=n,algorithm=RSA-OAEP-SHA224,file=" + path:                      `algorithm "RSA-OAEP-SHA224" is none of`,
		"namespace=ns,name=\xff,algorithm=AES,file=" + path:                               "name is not UTF-8",
		"namespace=\xff,name=n,algorithm=AES,file=" + path:                                "namespace is not UTF-8",
		"namespace=ns,name=" + strings.Repeat("n", 65516) + ",algorithm=AES,file=" + path: "name of 65516 bytes",
		"namespace=ns,name=n,algorithm=AES,file=" + path + "\n":                           "want namespace=NS",
		"namespace=ns,name=n,algorithm=AES,file=\"" + path:                                "want namespace=NS",
	} {
		_, err := ParseRawKey(spec)
		wantErrors(t, spec, err, kmsprovider.ErrInvalidInput)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q: %.300v, want %q", spec, err, want)
		}
	}
}

func TestRawKeySpecsHaveAnyOrderAndQuotedCommas(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a,b=c")
	if err := os.WriteFile(path, make([]byte, 16), 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := ParseRawKey(`"file=` + path + `",algorithm=AES,"name=n,""m""",namespace=a=b`)
	if err != nil {
		t.Fatal(err)
	}
	k := wrap(t, ring, nil).Keys[0]
	if k.Provider != "a=b" || !bytes.HasPrefix(k.Info, []byte(`n,"m"`+"\x00\x00\x00\x80")) {
		t.Errorf("wrapped key %s", k)
	}
	longest := "namespace=ns,name=" + strings.Repeat("n", 65515) + `,algorithm=AES,"file=` + path + `"`
	if ring, err = ParseRawKey(longest); err != nil {
		t.Fatal(err)
	}
	if n := len(wrap(t, ring, nil).Keys[0].Info); n != 65535 {
		t.Errorf("the longest name makes %d bytes", n)
	}
}

func TestKeyFilesOfEverybodyAreRefused(t *testing.T) {
	public := pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey))
	private := pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey()))
	for _, c := range []struct {
		mode           os.FileMode
		secret, public bool // whether they are taken
	}{
		{0o400, true, true}, {0o600, true, true}, {0o640, true, true}, {0o660, true, true}, {0o601, true, true},
		{0o604, false, true}, {0o644, false, true}, {0o602, false, false}, {0o666, false, false}, {0o777, false, false},
	} {
		for name, f := range map[string]struct {
			algorithm string
			content   []byte
			taken     bool
		}{
			"AES": {"AES", make([]byte, 16), c.secret}, "private": {"RSA-PKCS1", private, c.secret}, "public": {"RSA-PKCS1", public, c.public},
		} {
			path := keyFile(t, f.content)
			if err := os.Chmod(path, c.mode); err != nil {
				t.Fatal(err)
			}
			_, err := ParseRawKey(rawSpec(f.algorithm, path))
			if f.taken {
				if err != nil {
					t.Errorf("%s, mode %04o: %v", name, c.mode, err)
				}
				continue
			}
			wantErrors(t, name, err, kmsprovider.ErrInvalidInput)
			if err != nil && !strings.Contains(err.Error(), fmt.Sprintf("%04o", c.mode)) {
				t.Errorf("%s: the mode %04o is not named: %v", name, c.mode, err)
			}
		}
	}
}

func TestAKeyComesThroughAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() { written <- os.WriteFile(path, bytes.Repeat([]byte{24}, 24), 0) }()
	ring, err := ParseRawKey(rawSpec("AES", path))
	if err != nil {
		t.Fatal(err)
	}
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	if _, err := unwrap(t, ring, SuiteCommit, nil, wrap(t, testAES(t, "name", 24), nil).Keys...); err != nil {
		t.Error(err)
	}
}
