package local_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

func TestAKeystoreKeepsItsKeysAcrossOpens(t *testing.T) {
	k := create(t)
	arn := createKey(t, k, "kept")
	plaintext, wrapped, err := k.GenerateDataKey(t.Context(), arn, kmsprovider.Context{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, k.Path())
	got, err := again.Decrypt(t.Context(), arn, wrapped, kmsprovider.Context{"a": "b"})
	if err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("decrypt: %v", err)
	}
}

func TestCreateRefusesAnExistingFileAndLeavesItAlone(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a file":          func(path string) error { return os.WriteFile(path, []byte("mine"), 0o644) },
		"a dangling link": func(path string) error { return os.Symlink("nowhere", path) },
		"another keystore": func(path string) error {
			k, err := local.Create(context.Background(), options(path))
			k.Close()
			return err
		},
	} {
		path := filepath.Join(scratch(t), "keystore.json")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(path)
		o := options(path)
		o.Passphrase = func() ([]byte, error) { t.Errorf("%s: asked for the passphrase", name); return nil, nil }
		if _, err := local.Create(t.Context(), o); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s: changed", name)
		}
	}
}

func TestFilesAreTheOwnersAloneWhateverTheUmask(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	dir := scratch(t)
	path := filepath.Join(dir, "a", "b", "keystore.json")
	k, err := local.Create(t.Context(), options(path))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	createKey(t, k, "")
	for name, want := range map[string]fs.FileMode{
		filepath.Join(dir, "a"):      fs.ModeDir | 0o700,
		filepath.Join(dir, "a", "b"): fs.ModeDir | 0o700,
		path:                         0o600,
		path + ".lock":               0o600,
	} {
		st, err := os.Stat(name)
		if err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

func TestAMissingKeystoreIsToldBeforeThePassphraseIsAsked(t *testing.T) {
	o := options(filepath.Join(scratch(t), "none", "keystore.json"))
	o.Passphrase = func() ([]byte, error) { t.Error("asked for the passphrase"); return nil, nil }
	_, err := local.Open(t.Context(), o)
	if !errors.Is(err, local.ErrNoKeystore) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), o.Path) {
		t.Error(err)
	}
}

func TestAWrongPassphraseIsNotDamage(t *testing.T) {
	k := create(t)
	for _, wrong := range []string{"wrong", "", passphrase + "\n"} {
		o := options(k.Path())
		o.Passphrase = func() ([]byte, error) { return []byte(wrong), nil }
		_, err := local.Open(t.Context(), o)
		if !errors.Is(err, local.ErrWrongPassphrase) || errors.Is(err, local.ErrDamaged) || !strings.Contains(err.Error(), k.Path()) {
			t.Errorf("%q: %v", wrong, err)
		}
		if len(wrong) > 0 && strings.Contains(err.Error(), fmt.Sprintf("%q", wrong)) {
			t.Errorf("the error holds the passphrase: %v", err)
		}
	}
}

func TestThePassphraseIsAskedOnceAndWiped(t *testing.T) {
	path := filepath.Join(scratch(t), "keystore.json")
	o := options(path)
	var given []byte
	asked := 0
	o.Passphrase = func() ([]byte, error) { asked++; given = []byte(passphrase); return given, nil }
	check := func(what string) {
		t.Helper()
		if asked != 1 || !bytes.Equal(given, make([]byte, len(passphrase))) {
			t.Errorf("%s: asked %d times, wiped: %t", what, asked, !bytes.Contains(given, []byte("horse")))
		}
		asked = 0
	}
	k, err := local.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	createKey(t, k, "")
	check("create")
	k.Close()
	if k, err = local.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	arn := createKey(t, k, "")
	if err := k.DisableKey(t.Context(), arn); err != nil {
		t.Fatal(err)
	}
	check("open")
	failing := errors.New("no terminal")
	o.Passphrase = func() ([]byte, error) { asked++; given = []byte(passphrase); return given, failing }
	if _, err := local.Open(t.Context(), o); !errors.Is(err, failing) {
		t.Error(err)
	}
	check("failed prompt")
}

func TestCreateRefusesBadOptions(t *testing.T) {
	for name, change := range map[string]func(o *local.Options){
		"no path":             func(o *local.Options) { o.Path = "" },
		"no passphrase":       func(o *local.Options) { o.Passphrase = nil },
		"an empty passphrase": func(o *local.Options) { o.Passphrase = func() ([]byte, error) { return nil, nil } },
		"no passes":           func(o *local.Options) { o.KDF = &local.KDFParams{MemoryKiB: 8, Threads: 1} },
		"no threads":          func(o *local.Options) { o.KDF = &local.KDFParams{Time: 1, MemoryKiB: 8} },
		"too little memory":   func(o *local.Options) { o.KDF = &local.KDFParams{Time: 1, MemoryKiB: 15, Threads: 2} },
		"2 GiB of memory":     func(o *local.Options) { o.KDF = &local.KDFParams{Time: 1, MemoryKiB: 2 << 20, Threads: 1} },
		"too much work":       func(o *local.Options) { o.KDF = &local.KDFParams{Time: 9, MemoryKiB: 1 << 20, Threads: 1} },
	} {
		o := options(filepath.Join(scratch(t), "keystore.json"))
		change(&o)
		if _, err := local.Create(t.Context(), o); !errors.Is(err, kmsprovider.ErrInvalidInput) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(o.Path); o.Path != "" && err == nil {
			t.Errorf("%s: a file was made", name)
		}
	}
}

func TestTheDefaultKeyDerivationOpensWhatItMade(t *testing.T) {
	o := options(filepath.Join(scratch(t), "keystore.json"))
	o.KDF = nil
	k, err := local.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	open(t, o.Path)
	var file struct {
		KDF struct {
			Name      string
			Time      int
			MemoryKiB int `json:"memory_kib"`
			Threads   int
		}
	}
	b, _ := os.ReadFile(o.Path)
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if file.KDF.Name != "argon2id" || file.KDF.Time != 3 || file.KDF.MemoryKiB != 65536 || file.KDF.Threads != 4 {
		t.Errorf("%+v", file.KDF)
	}
}

func TestAClosedKeystoreAnswersNothing(t *testing.T) {
	k := create(t)
	arn := createKey(t, k, "")
	_, wrapped, err := k.GenerateDataKey(t.Context(), arn, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.Close(), k.Close()); err != nil {
		t.Fatal(err)
	}
	_, generated := k.CreateKey(t.Context(), local.CreateKeyInput{})
	_, decrypted := k.Decrypt(t.Context(), arn, wrapped, nil)
	_, listed := local.AllKeys(t.Context(), k)
	for _, err := range []error{generated, decrypted, listed, k.DisableKey(t.Context(), arn)} {
		if !errors.Is(err, fs.ErrClosed) || !errors.Is(err, kmsprovider.ErrUnavailable) {
			t.Error(err)
		}
	}
}

func TestNeitherTheKeystoreNorItsFileShowsSecrets(t *testing.T) {
	k := create(t)
	createKey(t, k, "shown")
	want := "local keystore " + k.Path()
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(format, k); got != want {
			t.Errorf("%s: %s", format, got)
		}
	}
	if b, err := json.Marshal([]any{k}); err != nil || string(b) != "[{}]" {
		t.Errorf("as JSON: %s, %v", b, err)
	}
	b, err := os.ReadFile(k.Path())
	if err != nil || bytes.Contains(b, []byte(passphrase)) || !bytes.Contains(b, []byte("shown")) {
		t.Errorf("the file holds the passphrase or lacks the description: %v", err)
	}
}

func TestACancelledContextStopsCreateAndOpen(t *testing.T) {
	k := create(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := local.Open(ctx, options(k.Path())); !errors.Is(err, context.Canceled) {
		t.Errorf("open: %v", err)
	}
	path := filepath.Join(scratch(t), "keystore.json")
	if _, err := local.Create(ctx, options(path)); !errors.Is(err, context.Canceled) {
		t.Errorf("create: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("create made a file")
	}
	if _, err := k.CreateKey(ctx, local.CreateKeyInput{}); !errors.Is(err, context.Canceled) {
		t.Errorf("create key: %v", err)
	}
}
