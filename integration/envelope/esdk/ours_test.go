package esdk

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/envelope"
	"kmsfs/integration/emulator"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/aws"
)

// ours is package envelope with one set of wrapping keys.
type ours struct{ keyring envelope.Keyring }

func policy(s envelope.Suite) envelope.CommitmentPolicy {
	if s.Commits() {
		return envelope.RequireEncryptRequireDecrypt
	}
	return envelope.ForbidEncryptAllowDecrypt
}

func (o ours) encrypt(t *testing.T, m message) []byte {
	t.Helper()
	var out bytes.Buffer
	_, err := envelope.Encrypt(t.Context(), &out, bytes.NewReader(m.plaintext), envelope.EncryptOptions{
		Keyring: o.keyring, Suite: m.suite, Policy: policy(m.suite), Context: m.context, RequiredContextKeys: m.required, FrameLength: m.frameLength,
	})
	if err != nil {
		t.Fatalf("kmsfs encrypts: %v", err)
	}
	return out.Bytes()
}

func (o ours) decrypt(t *testing.T, m message, ciphertext []byte) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	_, err := envelope.Decrypt(t.Context(), &out, bytes.NewReader(ciphertext), envelope.DecryptOptions{
		Keyring: o.keyring, Policy: policy(m.suite), Context: m.given(),
	})
	return out.Bytes(), err
}

// kmsKeyring takes s for AWS KMS.
func kmsKeyring(t *testing.T, s *emulator.Server, arns ...string) ours {
	t.Helper()
	for name, value := range s.Environment(s.URL) {
		t.Setenv(name, value)
	}
	provider := aws.New(aws.Options{})
	var uris []kmsprovider.KeyURI
	for _, arn := range arns {
		uris = append(uris, kmsprovider.KeyURI{Provider: "aws", KeyID: arn})
	}
	k, err := envelope.NewKMSKeyring(func(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error) { return provider, nil }, uris)
	if err != nil {
		t.Fatal(err)
	}
	return ours{k}
}

const rawNamespace = "keys of a test"

// rawKey is a wrapping key, RSA in PEM.
type rawKey struct {
	name, algorithm string
	secret, public  []byte
}

func newAESKey(t *testing.T, size int) rawKey {
	t.Helper()
	k := rawKey{name: fmt.Sprintf("aes %d", size), algorithm: "AES", secret: make([]byte, size)}
	if _, err := rand.Read(k.secret); err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSAKey(t *testing.T, algorithm string) rawKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	return rawKey{algorithm, algorithm, block("PRIVATE KEY", secret), block("PUBLIC KEY", public)}
}

// ours is package envelope with the key.
func (k rawKey) ours(t *testing.T) ours {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, k.secret, 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := envelope.ParseRawKey(fmt.Sprintf("namespace=%s,name=%s,algorithm=%s,file=%s", rawNamespace, k.name, k.algorithm, file))
	if err != nil {
		t.Fatal(err)
	}
	return ours{ring}
}
