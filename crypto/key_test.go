package crypto

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestKeyNeverPrintsItself(t *testing.T) {
	k := must(NewKey([]byte("SECRETSECRETSECRETSECRETSECRETSE")))
	holder := struct {
		Pointer *Key
		Value   Key
		hidden  Key
		deep    *Key
	}{k, *k, *k, k}
	secrets := []string{"SECRET", "534543524554", "83 69 67", "83, 69, 67", "0x53, 0x45"}
	check := func(how, out string, redacts bool) {
		t.Helper()
		for _, s := range secrets {
			if strings.Contains(out, s) {
				t.Errorf("%s shows the key: %s", how, out)
			}
		}
		if redacts && !strings.Contains(out, "crypto.Key(redacted)") {
			t.Errorf("%s: %s", how, out)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		check(verb, fmt.Sprintf(verb, k), true)
		check(verb+" of a copy", fmt.Sprintf(verb, *k), true)
		check(verb+" of a holder", fmt.Sprintf(verb, holder), true)
		check(verb+" of a pointer to a holder", fmt.Sprintf(verb, &holder), true)
		check(verb+" of a slice", fmt.Sprintf(verb, []*Key{k}), true)
	}
	check("String", k.String(), true)
	check("GoString", k.GoString(), true)
	check("JSON", string(must(json.Marshal(holder))), true)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("key", "k", k, "copy", *k, "holder", holder)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("key", "k", k, "copy", *k, "holder", holder)
	check("slog", log.String(), true)
	check("a sealed error", fmt.Sprint(NewXAES(k).Open(nil, nil, nil)), false)
}

func TestKeyIsExactlyThirtyTwoBytes(t *testing.T) {
	for _, n := range []int{0, 1, 31, 33, 64} {
		_, err := NewKey(make([]byte, n))
		wantError(t, err, ErrMalformed)
	}
	b := bytes.Repeat([]byte{7}, 32)
	k := must(NewKey(b))
	b[0] = 8
	if k.Bytes()[0] != 7 {
		t.Error("the key aliases the bytes it was made from")
	}
	if got := must(GenerateKey(newStream(1))); !bytes.Equal(got.Bytes(), randomBytes(1, 32)) {
		t.Error("a generated key is not what the random source gave")
	}
	_, err := GenerateKey(dry{})
	wantError(t, err, errNoRandom)
}

func TestKeysAreEqualByTheirBytes(t *testing.T) {
	k := testKey(1)
	if !k.Equal(k) || !k.Equal(k.Clone()) || k.Equal(testKey(2)) {
		t.Error("Equal does not compare bytes")
	}
}

func TestWipedKeyIsZeroAndRefusesWork(t *testing.T) {
	k, other := testKey(1), testKey(2)
	clone, bytesOfKey := k.Clone(), k.Bytes()
	k.Wipe()
	k.Wipe()
	if !bytes.Equal(bytesOfKey, make([]byte, 32)) || !bytes.Equal(k.Bytes(), make([]byte, 32)) {
		t.Error("a wiped key is not zero")
	}
	if !bytes.Equal(clone.Bytes(), testKey(1).Bytes()) {
		t.Error("wiping a key wiped its clone")
	}
	for what, f := range map[string]func(){
		"Derive":                 func() { k.Derive(LabelContent) },
		"Clone":                  func() { k.Clone() },
		"NewXAES":                func() { NewXAES(k) },
		"NewRooter":              func() { NewRooter(k) },
		"NewBlockCipher":         func() { NewBlockCipher(k, testFile) },
		"NewNameCipher":          func() { NewNameCipher(k) },
		"FileSecret":             func() { NewDataKeyCipher(other, testVolume).FileSecret(k) },
		"FileSecret, volume key": func() { NewDataKeyCipher(k, testVolume).FileSecret(other) },
		"Wrap":                   func() { _, _ = NewDataKeyCipher(other, testVolume).Wrap(newStream(1), testFile, k) },
		"Wrap, volume key":       func() { _, _ = NewDataKeyCipher(k, testVolume).Wrap(newStream(1), testFile, other) },
	} {
		wantPanic(t, what+" with a wiped key", f)
	}
	(*Key)(nil).Wipe()
	new(Key).Wipe()
}

func TestConstructorsLeaveTheirKeyUsable(t *testing.T) {
	k := testKey(1)
	NewBlockCipher(k, testFile)
	NewRecordCipher(k, testVolume, testFile)
	NewRooter(k)
	NewXAES(k)
	NewDirCipher(k, testVolume)
	NewSymlinkCipher(k, testVolume)
	NewXattrCipher(k)
	NewBinder(k)
	if !bytes.Equal(k.Bytes(), testKey(1).Bytes()) {
		t.Error("a constructor changed its key")
	}
}

func TestEveryLabelAndIDGivesAnotherKey(t *testing.T) {
	labels := []Label{
		LabelContent, LabelRoot, LabelCommit, LabelRecord, LabelNames, LabelSymlink, LabelXattr, LabelDir, LabelBind,
		LabelConfig, LabelWrap, LabelRedo, LabelManifest, LabelFingerprint, LabelFileSalt, LabelRootDirectory,
	}
	seen := map[string]string{}
	for _, l := range labels {
		for i, ids := range [][]ID{nil, {testVolume}, {testFile}, {testVolume, testFile}, {testFile, testVolume}} {
			name := fmt.Sprint(l, i)
			key := string(testKey(1).Derive(l, ids...).Bytes())
			if seen[key] != "" {
				t.Errorf("%s and %s give the same key", name, seen[key])
			}
			seen[key] = name
		}
	}
}

func TestFileSecretNeedsBothKeys(t *testing.T) {
	vk, dek := testKey(1), testKey(2)
	secret := NewDataKeyCipher(vk, testVolume).FileSecret(dek).Bytes()
	for name, other := range map[string]*Key{
		"other volume key": NewDataKeyCipher(testKey(3), testVolume).FileSecret(dek),
		"other data key":   NewDataKeyCipher(vk, testVolume).FileSecret(testKey(3)),
		"keys swapped":     NewDataKeyCipher(dek, testVolume).FileSecret(vk),
	} {
		if bytes.Equal(secret, other.Bytes()) {
			t.Errorf("%s: same secret", name)
		}
	}
	if !bytes.Equal(secret, NewDataKeyCipher(vk, testVolume).FileSecret(dek).Bytes()) {
		t.Error("the secret is not repeatable")
	}
}
