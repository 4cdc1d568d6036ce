package crypto

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestXattrNamesOfEveryLengthDecrypt(t *testing.T) {
	n := testNames()
	for size := 1; size <= MaxXattrName; size++ {
		name := strings.Repeat("n", size)
		enc, err := n.EncryptXattrName(name)
		if err != nil || !strings.HasPrefix(enc, "user.kmsfs.") || len(enc) > 255 {
			t.Fatalf("%d bytes: %s, %v", size, enc, err)
		}
		if got, err := n.DecryptXattrName(enc); err != nil || got != name {
			t.Errorf("%d bytes: %q, %v", size, got, err)
		}
	}
	_, err := n.EncryptXattrName(strings.Repeat("n", MaxXattrName+1))
	wantError(t, err, ErrTooLarge)
	for _, bad := range []string{"", "user.\x00"} {
		_, err := n.EncryptXattrName(bad)
		wantError(t, err, ErrMalformed)
		enc := XattrPrefix + encodeBase64(n.siv.seal(nil, []byte(bad), []byte("xattr")))
		_, err = n.DecryptXattrName(enc)
		wantError(t, err, ErrMalformed)
	}
}

func TestXattrNameIsNotAFileName(t *testing.T) {
	n := testNames()
	enc := must(n.EncryptXattrName("user.comment"))
	if _, err := n.Decrypt(testDir, strings.TrimPrefix(enc, XattrPrefix)); err == nil {
		t.Error("an attribute's name decrypts as a file's")
	}
	_, err := n.DecryptXattrName(XattrPrefix + must(n.Encrypt(testDir, "comment")))
	wantError(t, err, ErrAuthentication)
	for _, bad := range []string{
		"", "user.kmsfs.", "user.comment", enc[1:], enc + "=", enc + "\n", "USER" + enc[4:], enc + ".", "user.kmsfs." + enc,
		XattrPrefix + encodeBase64(make([]byte, 16)), XattrPrefix + encodeBase64(make([]byte, 16+MaxXattrName+1)),
	} {
		if _, err := n.DecryptXattrName(bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	raw := must(decodeBase64(enc[len(XattrPrefix):]))
	eachTampering(raw, func(_ int, tampered []byte) {
		_, err := n.DecryptXattrName(XattrPrefix + encodeBase64(tampered))
		wantError(t, err, ErrAuthentication)
	})
}

func TestXattrValueOpensOnlyWhereItWasSet(t *testing.T) {
	c := NewXattrCipher(testKey(1))
	for _, size := range sizes {
		value := randomBytes(1, size)
		sealed := must(c.Seal(newStream(2), testFile, "user.a", value))
		if len(sealed) != size+XattrOverhead {
			t.Errorf("%d bytes become %d", size, len(sealed))
		}
		if got, err := c.Open(testFile, "user.a", sealed); err != nil || !bytes.Equal(got, value) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	sealed := must(c.Seal(newStream(2), testFile, "user.a", []byte("value")))
	refused := func(what string, c *XattrCipher, id ID, name string, sealed []byte) {
		t.Helper()
		if _, err := c.Open(id, name, sealed); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("another file", c, testDir, "user.a", sealed)
	refused("another attribute", c, testFile, "user.b", sealed)
	refused("another volume key", NewXattrCipher(testKey(2)), testFile, "user.a", sealed)
	refused("cut short", c, testFile, "user.a", sealed[:39])
	refused("nothing", c, testFile, "user.a", nil)
	eachTampering(sealed, func(_ int, tampered []byte) { refused("tampered", c, testFile, "user.a", tampered) })
	_, err := c.Seal(dry{}, testFile, "user.a", nil)
	wantError(t, err, errNoRandom)
}

func FuzzDecryptXattrName(f *testing.F) {
	n := testNames()
	addSeeds(f, func(b []byte) bool { _, err := n.DecryptXattrName(string(b)); return err == nil },
		[]byte(must(n.EncryptXattrName("user.comment"))), []byte("user.kmsfs."), []byte("user.comment"), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := n.DecryptXattrName(string(b))
		if err != nil {
			return
		}
		if again, err := n.EncryptXattrName(name); err != nil || again != string(b) {
			t.Errorf("%q decrypts and encrypts to %q, %v", b, again, err)
		}
	})
}

func FuzzOpenXattr(f *testing.F) {
	c := NewXattrCipher(testKey(1))
	seed := must(c.Seal(newStream(1), testFile, "user.a", []byte("seed")))
	parses := func(b []byte) bool { _, err := c.Open(testFile, "user.a", b); return err == nil }
	addSeeds(f, parses, seed, seed[:39], nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, seed) {
			t.Errorf("%x opens, and was never sealed", b)
		}
	})
}
