package local_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/providertest"
)

const passphrase = "correct horse battery staple"

// options are those of a test: the cheapest key derivation there is.
func options(path string) local.Options {
	return local.Options{
		Path:       path,
		Passphrase: func() ([]byte, error) { return []byte(passphrase), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	}
}

// scratch is a directory of the test's own, in memory where that is possible:
// nothing here depends on a disk, and syncing a busy one takes its time.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kmsfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// create makes a keystore in a directory of its own.
func create(t testing.TB) *local.Keystore {
	t.Helper()
	k, err := local.Create(t.Context(), options(filepath.Join(scratch(t), "keystore.json")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// open opens the keystore at path once more.
func open(t testing.TB, path string) *local.Keystore {
	t.Helper()
	k, err := local.Open(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// createKey makes a key and returns its ARN.
func createKey(t testing.TB, k *local.Keystore, description string) string {
	t.Helper()
	m, err := k.CreateKey(t.Context(), local.CreateKeyInput{Description: description})
	if err != nil {
		t.Fatal(err)
	}
	return m.ARN
}

// fixture is a keystore with two keys; using is the provider the suite gets.
func fixture(t *testing.T, using func(*local.Keystore) kmsprovider.Provider) providertest.Fixture {
	k := create(t)
	f := providertest.Fixture{
		Provider:   using(k),
		KeyID:      createKey(t, k, "one"),
		OtherKeyID: createKey(t, k, "other"),
		Alias:      "alias/contract",
		DisableKey: func(t testing.TB, keyID string) {
			if err := k.DisableKey(t.Context(), keyID); err != nil {
				t.Fatal(err)
			}
		},
	}
	if err := k.CreateAlias(t.Context(), f.Alias, f.KeyID); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestTheKeystoreKeepsTheProviderContract(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		return fixture(t, func(k *local.Keystore) kmsprovider.Provider { return k })
	})
}

// lax is a keystore with a defect: an empty wrapped key opens.
type lax struct{ *local.Keystore }

func (l lax) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if len(wrapped) == 0 {
		return bytes.Repeat([]byte{1}, 32), nil
	}
	return l.Keystore.Decrypt(ctx, keyID, wrapped, ec)
}

func TestADeclaredDefectPassesTheContract(t *testing.T) {
	providertest.Run(t, func(t *testing.T) providertest.Fixture {
		f := fixture(t, func(k *local.Keystore) kmsprovider.Provider { return lax{k} })
		f.Deviations = []providertest.Deviation{{Check: "an empty wrapped key is refused", Instead: nil, Why: "the defect of this test"}}
		return f
	})
}
