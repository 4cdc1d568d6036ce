package local

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

func testOptions(path string) Options {
	return Options{
		Path:       path,
		Passphrase: func() ([]byte, error) { return []byte("passphrase"), nil },
		KDF:        &KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
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

// twoKeys makes a keystore with two keys and an alias, and returns its bytes.
func twoKeys(t testing.TB) (*Keystore, []byte) {
	t.Helper()
	ctx := context.Background()
	k, err := Create(ctx, testOptions(filepath.Join(scratch(t), "keystore.json")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	if _, err := k.EnsureDefaultKey(ctx); err != nil {
		t.Fatal(err)
	}
	m, err := k.CreateKey(ctx, CreateKeyInput{Description: "second"})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.DisableKey(ctx, m.ARN); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(k.Path())
	if err != nil {
		t.Fatal(err)
	}
	return k, b
}

// openBytes puts b in the place of a keystore and opens it.
func openBytes(t testing.TB, b []byte) error {
	t.Helper()
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Open(context.Background(), testOptions(path))
	if err == nil {
		k.Close()
	} else if !strings.Contains(err.Error(), path) {
		t.Errorf("the error does not name the path: %v", err)
	}
	return err
}

// checkBytes does to b what Open does before it asks for the passphrase; with
// whole set it is Open itself, which costs a file.
func checkBytes(t testing.TB, b []byte, whole bool) error {
	t.Helper()
	if whole {
		return openBytes(t, b)
	}
	d, err := decodeDocument(b)
	if err != nil {
		return err
	}
	return d.verifyChecksum()
}

func TestAKeystoreWithAnyByteChangedIsDamaged(t *testing.T) {
	_, b := twoKeys(t)
	if err := openBytes(t, b); err != nil {
		t.Fatal(err)
	}
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		err := checkBytes(t, changed, i%50 == 0)
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrVersion) || errors.Is(err, ErrWrongPassphrase) {
			t.Fatalf("byte %d, %q: %v", i, b[max(0, i-20):i+1], err)
		}
	}
}

func TestATruncatedKeystoreIsDamaged(t *testing.T) {
	_, b := twoKeys(t)
	for n := range len(b) {
		if err := checkBytes(t, b[:n], n%50 == 0); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	for _, tail := range []string{"\n", " ", "{}", string(b)} {
		if err := openBytes(t, append(bytes.Clone(b), tail...)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("with %.10q appended: %v", tail, err)
		}
	}
}

// forge applies an edit as somebody would who knows the format and not the
// passphrase: the checksum fits.
func forge(t testing.TB, b []byte, edit func(d *document)) []byte {
	t.Helper()
	d, err := decodeDocument(b)
	if err != nil {
		t.Fatal(err)
	}
	edit(d)
	covered, err := d.checksumBytes()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(covered)
	d.Checksum = sum[:]
	forged, err := d.encode()
	if err != nil {
		t.Fatal(err)
	}
	return forged
}

func TestEditsByOneWithoutThePassphraseAreRefused(t *testing.T) {
	_, b := twoKeys(t)
	if err := openBytes(t, forge(t, b, func(*document) {})); err != nil {
		t.Fatalf("no edit at all: %v", err)
	}
	for name, edit := range map[string]func(d *document){
		"a key enabled":         func(d *document) { d.Keys[1].State = kmsprovider.StateEnabled },
		"a description":         func(d *document) { d.Keys[1].Description = "first" },
		"a manager":             func(d *document) { d.Keys[0].Manager = kmsprovider.ManagerCustomer },
		"a date":                func(d *document) { d.Keys[0].Created = d.Keys[0].Created.Add(time.Second) },
		"the account":           func(d *document) { d.Account = "123456789012" },
		"the count of writes":   func(d *document) { d.Writes-- },
		"an alias turned":       func(d *document) { d.Aliases[0].Target = d.Keys[1].ID },
		"an alias renamed":      func(d *document) { d.Aliases[0].Name = "alias/other" },
		"an alias removed":      func(d *document) { d.Aliases = nil },
		"a key removed":         func(d *document) { d.Keys = d.Keys[:1] },
		"keys in another order": func(d *document) { d.Keys[0], d.Keys[1] = d.Keys[1], d.Keys[0] },
		"materials swapped": func(d *document) {
			d.Keys[0].Materials, d.Keys[1].Materials = d.Keys[1].Materials, d.Keys[0].Materials
			d.Keys[0].Current, d.Keys[1].Current = d.Keys[1].Current, d.Keys[0].Current
		},
		"a material twice":     func(d *document) { d.Keys[0].Materials = append(d.Keys[0].Materials, d.Keys[1].Materials...) },
		"the MAC":              func(d *document) { d.MAC[0] ^= 1 },
		"no MAC":               func(d *document) { d.MAC = nil },
		"a MAC cut short":      func(d *document) { d.MAC = d.MAC[:1] },
		"a checksum for a MAC": func(d *document) { m, _ := d.macBytes(); sum := sha256.Sum256(m); d.MAC = sum[:] },
	} {
		if err := openBytes(t, forge(t, b, edit)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What the key-encrypting key is sealed with cannot be told from a wrong
	// passphrase, once the checksum was made to fit.
	for name, edit := range map[string]func(d *document){
		"the salt":       func(d *document) { d.KDF.Salt[0] ^= 1 },
		"more passes":    func(d *document) { d.KDF.Time++ },
		"the sealed key": func(d *document) { d.KEK[30] ^= 1 },
		"the ID":         func(d *document) { d.ID = strings.Repeat("0", 32) },
	} {
		if err := openBytes(t, forge(t, b, edit)); !errors.Is(err, ErrWrongPassphrase) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealedMaterialIsBoundToItsPlace(t *testing.T) {
	k, b := twoKeys(t)
	d, err := decodeDocument(b)
	if err != nil {
		t.Fatal(err)
	}
	r := d.Keys[0]
	arn, sealed := keyARN(d.Account, r.ID), r.Materials[0].Sealed
	id, _ := parseMaterialID(r.Current)
	if _, err := k.sealer.openMaterial(sealed, arn, id); err != nil {
		t.Fatal(err)
	}
	other := id
	other[0] ^= 1
	stranger := *k.sealer
	stranger.keystoreID = strings.Repeat("0", 32)
	_, wrongKey := k.sealer.openMaterial(sealed, keyARN(d.Account, d.Keys[1].ID), id)
	_, wrongAccount := k.sealer.openMaterial(sealed, keyARN("123456789012", r.ID), id)
	_, wrongMaterial := k.sealer.openMaterial(sealed, arn, other)
	_, wrongKeystore := stranger.openMaterial(sealed, arn, id)
	for name, err := range map[string]error{"key": wrongKey, "account": wrongAccount, "material": wrongMaterial, "keystore": wrongKeystore} {
		if err == nil {
			t.Errorf("opens for another %s", name)
		}
	}
}

func TestAFileCannotDemandMemoryOrTime(t *testing.T) {
	_, b := twoKeys(t)
	asked := false
	for name, edit := range map[string]func(d *document){
		"1 TiB":            func(d *document) { d.KDF.MemoryKiB = 1 << 30 },
		"2 GiB":            func(d *document) { d.KDF.MemoryKiB = 2 << 20 },
		"a million passes": func(d *document) { d.KDF.Time = 1_000_000 },
		"much of both":     func(d *document) { d.KDF.Time, d.KDF.MemoryKiB = 64, 1<<20 },
		"no passes":        func(d *document) { d.KDF.Time = 0 },
		"no threads":       func(d *document) { d.KDF.Threads = 0 },
		"255 threads":      func(d *document) { d.KDF.Threads, d.KDF.MemoryKiB = 255, 1<<20 },
		"a short salt":     func(d *document) { d.KDF.Salt = d.KDF.Salt[:15] },
		"a long salt":      func(d *document) { d.KDF.Salt = make([]byte, 65) },
		"another KDF":      func(d *document) { d.KDF.Name = "scrypt" },
	} {
		path := filepath.Join(scratch(t), "keystore.json")
		if err := os.WriteFile(path, forge(t, b, edit), 0o600); err != nil {
			t.Fatal(err)
		}
		o := testOptions(path)
		o.Passphrase = func() ([]byte, error) { asked = true; return []byte("passphrase"), nil }
		if _, err := Open(t.Context(), o); !errors.Is(err, ErrDamaged) || asked {
			t.Errorf("%s: %v, asked %t", name, err, asked)
		}
	}
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), testOptions(path)); !errors.Is(err, ErrDamaged) {
		t.Errorf("1 TiB of file: %v", err)
	}
	if _, err := Open(t.Context(), testOptions(scratch(t))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a directory: %v", err)
	}
}

func TestOtherVersionsAndOtherSpellingsAreRefused(t *testing.T) {
	_, b := twoKeys(t)
	if err := openBytes(t, bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 2, "new": true`), 1)); !errors.Is(err, ErrVersion) || errors.Is(err, ErrDamaged) {
		t.Errorf("version 2: %v", err)
	}
	for name, changed := range map[string][]byte{
		"an unknown field":           bytes.Replace(b, []byte(`"account"`), []byte(`"acount": "", "account"`), 1),
		"an unknown field of a key":  bytes.Replace(b, []byte(`"origin"`), []byte(`"polic": "", "origin"`), 1),
		"a field twice":              bytes.Replace(b, []byte(`"account"`), []byte(`"account": "123456789012", "account"`), 1),
		"a field in capitals":        bytes.Replace(b, []byte(`"account"`), []byte(`"ACCOUNT"`), 1),
		"no space after a colon":     bytes.Replace(b, []byte(`": `), []byte(`":`), 1),
		"a letter escaped":           bytes.Replace(b, []byte(`"second"`), []byte(`"\u0073econd"`), 1),
		"a line break within base64": bytes.Replace(b, []byte(`=="`), []byte(`\n=="`), 1),
		"an array":                   []byte("[]\n"),
		"null":                       []byte("null\n"),
		"another kind of file":       bytes.Replace(b, []byte(documentFormat), []byte("kmsfs volume"), 1),
		"nothing":                    nil,
		"aliases null":               bytes.Replace(forge(t, b, func(d *document) { d.Aliases = nil }), []byte(`"aliases": []`), []byte(`"aliases": null`), 1),
	} {
		if bytes.Equal(changed, b) {
			t.Errorf("%s: the test changed nothing", name)
		}
		err := openBytes(t, changed)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.HasPrefix(name, "an unknown field") && !strings.Contains(err.Error(), "unknown field") {
			t.Errorf("%s: the error does not say so: %v", name, err)
		}
	}
}

func TestABlobHasItsDocumentedLayout(t *testing.T) {
	k, b := twoKeys(t)
	d, err := decodeDocument(b)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := k.Encrypt(t.Context(), DefaultAlias, []byte("five!"), nil)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := parseKeyUUID(d.Keys[0].ID)
	want := "01" + hex.EncodeToString(id[:]) + d.Keys[0].Current
	if got := hex.EncodeToString(wrapped[:49]); got != want || len(wrapped) != 49+24+5+16 {
		t.Errorf("%d bytes, header %s, want %s", len(wrapped), got, want)
	}
	ec := kmsprovider.Context{"a": "b"}
	if wrapped, err = k.Encrypt(t.Context(), DefaultAlias, []byte("five!"), ec); err != nil {
		t.Fatal(err)
	}
	material := k.state.byName[DefaultAlias].current
	plaintext, err := material.Open(nil, wrapped[49:], append(bytes.Clone(wrapped[:49]), ec.Canonical()...))
	if err != nil || string(plaintext) != "five!" {
		t.Errorf("with the documented AAD: %v", err)
	}
}

func TestTheFileCountsItsWrites(t *testing.T) {
	k, b := twoKeys(t)
	d, err := decodeDocument(b)
	if err != nil || d.Writes != 3 {
		t.Errorf("%d writes, %v", d.Writes, err)
	}
	if err := k.DisableKey(t.Context(), d.Keys[1].ID); err != nil { // changes nothing
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(k.Path()); !bytes.Equal(now, b) {
		t.Error("written without a change")
	}
}
