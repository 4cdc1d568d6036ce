package age_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	filippo "filippo.io/age"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/age"
	"kmsfs/kmsprovider/providertest"
)

// identity makes an identity and names its recipient.
func identity(t testing.TB) (*filippo.X25519Identity, string) {
	t.Helper()
	id, err := filippo.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id, id.Recipient().String()
}

func given(ids ...filippo.Identity) age.Source {
	return func() ([]filippo.Identity, error) { return ids, nil }
}

// deviations: a recipient is all there is to a key.
var deviations = []providertest.Deviation{
	{Check: "an unknown key is not found", Instead: kmsprovider.ErrInvalidInput, Why: "every recipient that is well-formed is a key"},
}

func TestTheProviderContractIsKept(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		one, recipient := identity(t)
		other, otherRecipient := identity(t)
		return providertest.Fixture{
			Provider: age.New(given(one, other)), KeyID: recipient, OtherKeyID: otherRecipient,
			UnknownKeyID: "age1" + strings.Repeat("q", 58), Deviations: deviations,
		}
	})
}

// The longest names, and the longest wrapped keys.
func TestPostQuantumRecipientsWrapAllSizes(t *testing.T) {
	id, err := filippo.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	other, _ := identity(t)
	recipient := id.Recipient().String()
	if _, err := kmsprovider.ParseKeyURI("age:" + recipient); err != nil {
		t.Error(err)
	}
	p := age.New(given(other, id))
	for _, size := range []int{1, 32, kmsprovider.MaxPlaintext} {
		plaintext := bytes.Repeat([]byte{7}, size)
		wrapped, err := p.Encrypt(t.Context(), recipient, plaintext, nil)
		if err != nil || len(wrapped) > kmsprovider.MaxCiphertext {
			t.Fatalf("%d bytes: %d wrapped, %v", size, len(wrapped), err)
		}
		if got, err := p.Decrypt(t.Context(), recipient, wrapped, nil); err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if _, err := p.Decrypt(t.Context(), other.Recipient().String(), wrapped, nil); !errors.Is(err, kmsprovider.ErrIncorrectKey) {
			t.Errorf("%d bytes for another recipient: %v", size, err)
		}
	}
}

func TestARecipientWrapsAndOnlyItsIdentityOpens(t *testing.T) {
	id, recipient := identity(t)
	other, _ := identity(t)
	ec := kmsprovider.Context{"a": "b"}
	plaintext, wrapped, err := age.New(nil).GenerateDataKey(t.Context(), recipient, ec)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := age.New(given(other, id)).Decrypt(t.Context(), recipient, wrapped, ec); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatal(err)
	}
	for name, source := range map[string]age.Source{
		"none given": nil, "another one given": given(other),
		"a file that is missing": age.FromFile(filepath.Join(t.TempDir(), "missing")),
	} {
		p := age.New(source)
		_, decrypted := p.Decrypt(t.Context(), recipient, wrapped, ec)
		_, rewrapped := p.ReEncrypt(t.Context(), wrapped, recipient, ec, recipient, nil)
		for _, err := range []error{decrypted, rewrapped} {
			var hint interface{ Hint() string }
			if !errors.Is(err, kmsprovider.ErrNotUsable) || !errors.Is(err, kmsprovider.ErrAccessDenied) ||
				!errors.As(err, &hint) || !strings.Contains(hint.Hint(), "--age-identity") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := p.DescribeKey(t.Context(), recipient); err != nil {
			t.Errorf("%s: describe: %v", name, err)
		}
	}
}

func TestIdentitiesAreReadFromAFileWhenTheyAreNeeded(t *testing.T) {
	id, recipient := identity(t)
	file := filepath.Join(t.TempDir(), "identity")
	p := age.New(age.FromFile(file))
	plaintext, wrapped, err := p.GenerateDataKey(t.Context(), recipient, nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(id.String(), "1")[1][:20]
	for _, content := range []string{"", "# empty\n", "AGE-SECRET-KEY-1" + secret + "\n", "age-encryption.org/v1\n" + secret} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := p.Decrypt(t.Context(), recipient, wrapped, nil)
		if !errors.Is(err, kmsprovider.ErrNotUsable) || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), secret) {
			t.Errorf("%.30q: %v", content, err)
		}
	}
	if err := os.WriteFile(file, []byte("# created: today\n# public key: "+recipient+"\n"+id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := p.Decrypt(t.Context(), recipient, wrapped, nil); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) { // read once
			t.Fatal(err)
		}
	}
}

// The format is a promise: another program can open it.
func TestAWrappedKeyIsAnAgeFile(t *testing.T) {
	id, recipient := identity(t)
	wrapped, err := age.New(nil).Encrypt(t.Context(), recipient, []byte("key"), kmsprovider.Context{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := filippo.Decrypt(bytes.NewReader(wrapped), id)
	if err != nil {
		t.Fatal(err)
	}
	plaintext, err := io.ReadAll(r)
	if err != nil || len(plaintext) != 35 || string(plaintext[32:]) != "key" {
		t.Errorf("%d bytes, %v", len(plaintext), err)
	}
	// What somebody else has sealed for the recipient, without a context, is refused.
	for _, content := range []string{"", "key", strings.Repeat("x", 32), strings.Repeat("x", 64), strings.Repeat("x", 32+4097)} {
		var file bytes.Buffer
		w, err := filippo.Encrypt(&file, id.Recipient())
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := age.New(given(id)).Decrypt(t.Context(), recipient, file.Bytes(), nil); !errors.Is(err, kmsprovider.ErrInvalidCiphertext) {
			t.Errorf("%d bytes: %v", len(content), err)
		}
	}
}

func TestNamesThatAreNoRecipientAreRefused(t *testing.T) {
	_, recipient := identity(t)
	p := age.New(nil)
	for _, name := range []string{
		"", "age1", "alias/x", strings.ToUpper(recipient), recipient[:len(recipient)-1], recipient + " ", recipient[:20] + "q" + recipient[21:] + "q",
		"ssh-ed25519 AAAA", "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t", "AGE-SECRET-KEY-1QQQQ",
	} {
		if _, err := p.DescribeKey(t.Context(), name); !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := p.Encrypt(t.Context(), name, []byte("x"), nil); !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%q: %v", name, err)
		}
	}
}
