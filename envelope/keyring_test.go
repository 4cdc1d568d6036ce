package envelope

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/slow"
)

// keystore is a local KMS whose calls are counted, as are those that ask for it.
type keystore struct {
	t     testing.TB
	store *local.Keystore
	calls *slow.Provider

	mu     sync.Mutex
	opened int
}

func newKeystore(t testing.TB) *keystore {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kmsfs-test-")
	if err != nil {
		dir = t.TempDir()
	} else {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	store, err := local.Create(t.Context(), local.Options{
		Path:       filepath.Join(dir, "keystore.json"),
		Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &keystore{t: t, store: store, calls: slow.New(store, 0)}
}

// open is an OpenProvider that has this keystore for every key.
func (s *keystore) open(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	return s.calls, nil
}

// key makes a key and returns its ARN.
func (s *keystore) key() string {
	s.t.Helper()
	m, err := s.store.CreateKey(s.t.Context(), local.CreateKeyInput{})
	if err != nil {
		s.t.Fatal(err)
	}
	return m.ARN
}

// keyring is that of keys, given as users name them.
func (s *keystore) keyring(keys ...string) Keyring {
	s.t.Helper()
	var uris []kmsprovider.KeyURI
	for _, k := range keys {
		u, err := kmsprovider.ParseKeyURI(k)
		if err != nil {
			s.t.Fatal(err)
		}
		uris = append(uris, u)
	}
	ring, err := NewKMSKeyring(s.open, uris)
	if err != nil {
		s.t.Fatal(err)
	}
	return ring
}

// wantCalls fails unless these calls, "Decrypt 2", and no others were made since it was last asked.
func (s *keystore) wantCalls(what string, want map[string]int) {
	s.t.Helper()
	if got := s.calls.Calls(); !maps.Equal(got, want) {
		s.t.Errorf("%s: calls of the KMS %v, want %v", what, got, want)
	}
	s.calls = slow.New(s.store, 0)
}

// wrap has ring make and wrap a data key.
func wrap(t testing.TB, ring Keyring, ec kmsprovider.Context) *EncryptionMaterials {
	t.Helper()
	m := &EncryptionMaterials{Suite: SuiteCommit, Context: ec}
	if err := ring.OnEncrypt(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// unwrap has ring open a data key of suite.
func unwrap(t testing.TB, ring Keyring, suite Suite, ec kmsprovider.Context, keys ...EncryptedDataKey) ([]byte, error) {
	t.Helper()
	m := &DecryptionMaterials{Suite: suite, Context: ec}
	err := ring.OnDecrypt(t.Context(), m, keys)
	if (err == nil) != (m.DataKey != nil) {
		t.Errorf("error %v beside a data key of %d bytes", err, len(m.DataKey))
	}
	return m.DataKey, err
}

// wantErrors fails unless err is every one of want.
func wantErrors(t testing.TB, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s: error %v, want one that is %q", what, err, w)
		}
	}
}

// answers is a provider that answers with functions of a test; others panic.
type answers struct {
	kmsprovider.Provider
	decrypt  func(ctx context.Context, keyID string) ([]byte, error)
	describe func() (kmsprovider.KeyInfo, error)
}

func (a answers) Decrypt(ctx context.Context, keyID string, _ []byte, _ kmsprovider.Context) ([]byte, error) {
	return a.decrypt(ctx, keyID)
}

func (a answers) DescribeKey(context.Context, string) (kmsprovider.KeyInfo, error) {
	return a.describe()
}

func (a answers) open(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error) {
	return a, nil
}

func TestAnErrorOfManyKeysNamesSomeAndMatchesAll(t *testing.T) {
	var causes []error
	for i := range 20 {
		causes = append(causes, fmt.Errorf("cause %d", i))
	}
	causes = append(causes, kmsprovider.ErrKeyDisabled)
	err := error(&noKeyError{causes})
	wantErrors(t, "the last cause", err, ErrNoKey, kmsprovider.ErrKeyDisabled)
	text := err.Error()
	if !strings.Contains(text, "cause 7; and 13 more") || strings.Contains(text, "cause 8") {
		t.Errorf("text %q", text)
	}
}

func TestADataKeyIsNotOpenedOverAnother(t *testing.T) {
	s := newKeystore(t)
	ring := s.keyring(s.key())
	m := wrap(t, ring, nil)
	d := &DecryptionMaterials{Suite: SuiteCommit, DataKey: []byte("there")}
	if err := ring.OnDecrypt(t.Context(), d, m.Keys); err == nil || string(d.DataKey) != "there" {
		t.Errorf("error %v, data key %q", err, d.DataKey)
	}
}
