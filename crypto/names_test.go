package crypto

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func testNames() *NameCipher { return NewNameCipher(testKey(1)) }

// sealName encrypts bytes that Encrypt would refuse.
func sealName(n *NameCipher, dir ID, padded []byte) string {
	return encodeBase64(n.siv.seal(nil, padded, dir[:]))
}

func TestNamesOfEveryLengthDecrypt(t *testing.T) {
	n := testNames()
	for size := 1; size <= MaxName; size++ {
		for _, fill := range []string{"x", "\x80", "\xff"} {
			name := strings.Repeat(fill, size)
			enc, err := n.Encrypt(testDir, name)
			if err != nil {
				t.Fatalf("%d × %q: %v", size, fill, err)
			}
			if got, err := n.Decrypt(testDir, enc); err != nil || got != name {
				t.Errorf("%d × %q: %q, %v", size, fill, got, err)
			}
			if want := ((size/16+2)*16*4 + 2) / 3; len(enc) != want {
				t.Errorf("%d bytes become %d characters, want %d", size, len(enc), want)
			}
			if strings.ContainsAny(enc, "./+=") {
				t.Errorf("%s could be taken for a name of another kind", enc)
			}
			if long := len(enc) > MaxBackingName; long != (size >= 160) {
				t.Errorf("a name of %d bytes is long: %v", size, long)
			}
		}
	}
}

func TestNamesThatAreHardToGuessSurvive(t *testing.T) {
	n := testNames()
	for _, name := range []string{"...", ".hidden", "..a", " ", "\n", "a\x80", "\x80", "L.x", "Ünïcödé", "\xff\xfe", ".kmsfs", "-rf", "trailing "} {
		enc := must(n.Encrypt(testDir, name))
		if got, err := n.Decrypt(testDir, enc); err != nil || got != name {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

func TestNamesThatNoFileMayHaveAreRefused(t *testing.T) {
	n := testNames()
	for _, name := range []string{"", ".", "..", "a/b", "/", "\x00", "a\x00"} {
		_, err := n.Encrypt(testDir, name)
		wantError(t, err, ErrMalformed)
		// Nor may one come out of a decryption, whoever encrypted it.
		if _, err := n.Decrypt(testDir, sealName(n, testDir, pad(nil, name))); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q decrypts: %v", name, err)
		}
	}
	_, err := n.Encrypt(testDir, strings.Repeat("x", 256))
	wantError(t, err, ErrTooLarge)
	_, err = n.Decrypt(testDir, sealName(n, testDir, pad(nil, strings.Repeat("x", 256))))
	wantError(t, err, ErrMalformed)
}

func TestNameDecryptsOnlyInItsDirectory(t *testing.T) {
	n := testNames()
	enc := must(n.Encrypt(testDir, "a name"))
	if enc != must(n.Encrypt(testDir, "a name")) {
		t.Error("a name encrypts differently the second time")
	}
	if enc == must(n.Encrypt(testFile, "a name")) || enc == must(n.Encrypt(testDir, "a namf")) {
		t.Error("names look alike")
	}
	_, err := n.Decrypt(testFile, enc)
	wantError(t, err, ErrAuthentication)
	_, err = NewNameCipher(testKey(2)).Decrypt(testDir, enc)
	wantError(t, err, ErrAuthentication)
	eachTampering(must(decodeBase64(enc)), func(_ int, tampered []byte) {
		_, err := n.Decrypt(testDir, encodeBase64(tampered))
		wantError(t, err, ErrAuthentication)
	})
}

func TestEncryptedNameHasOneSpelling(t *testing.T) {
	n := testNames()
	enc := must(n.Encrypt(testDir, "a name")) // 43 characters: the last one has two unused bits
	next := enc[:42] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", enc[42])+1])
	for _, bad := range []string{
		"", "A", enc[:42], enc[:22], enc + "=", enc + "\n", enc[:10] + "\r\n" + enc[10:], next, " " + enc, "+" + enc[1:], "/" + enc[1:],
		"." + enc[1:], ShortName(enc), "L.", strings.Repeat("A", 364), strings.Repeat("A", 1<<16), encodeBase64(make([]byte, 16)),
	} {
		if _, err := n.Decrypt(testDir, bad); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.80q: %v", bad, err)
		}
	}
}

func TestPaddingHasOneForm(t *testing.T) {
	n := testNames()
	for name, padded := range map[string][]byte{
		"none":              bytes.Repeat([]byte("x"), 16),
		"zeros only":        append([]byte("x"), make([]byte, 15)...),
		"all zeros":         make([]byte, 16),
		"a block too long":  append([]byte("x\x80"), make([]byte, 30)...),
		"with a stray byte": append(append([]byte("x\x80"), make([]byte, 13)...), 1),
	} {
		if _, err := n.Decrypt(testDir, sealName(n, testDir, padded)); !errors.Is(err, ErrMalformed) {
			t.Errorf("padding %s: %v", name, err)
		}
	}
}

func TestShortNameFitsAndIsNoEncryptedName(t *testing.T) {
	enc := must(testNames().Encrypt(testDir, strings.Repeat("x", 255)))
	short := ShortName(enc)
	if len(enc) != MaxEncryptedName || len(short) != 45 || !strings.HasPrefix(short, LongPrefix) || len(short+LongSuffix) > MaxBackingName {
		t.Errorf("%s of %d characters", short, len(enc))
	}
	if ShortName(enc[1:]) == short {
		t.Error("two names share a short name")
	}
}

func FuzzDecryptName(f *testing.F) {
	n := testNames()
	addSeeds(f, func(b []byte) bool { _, err := n.Decrypt(testDir, string(b)); return err == nil },
		[]byte(must(n.Encrypt(testDir, "seed"))), []byte(must(n.Encrypt(testDir, strings.Repeat("x", 255)))),
		[]byte(must(n.Encrypt(testFile, "elsewhere"))), []byte("L.x"), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := n.Decrypt(testDir, string(b))
		if err != nil {
			return
		}
		if again, err := n.Encrypt(testDir, name); err != nil || again != string(b) {
			t.Errorf("%q decrypts and encrypts to %q, %v", b, again, err)
		}
	})
}

func FuzzEncryptName(f *testing.F) {
	n := testNames()
	addSeeds(f, func(b []byte) bool { _, err := n.Encrypt(testDir, string(b)); return err == nil },
		[]byte("a name"), []byte("\x80"), []byte(".."), []byte("a/b"), bytes.Repeat([]byte("x"), 256))
	f.Fuzz(func(t *testing.T, b []byte) {
		enc, err := n.Encrypt(testDir, string(b))
		if err != nil {
			return
		}
		if name, err := n.Decrypt(testDir, enc); err != nil || name != string(b) {
			t.Errorf("%q encrypts and decrypts to %q, %v", b, name, err)
		}
	})
}

func FuzzUnpad(f *testing.F) {
	addSeeds(f, func(b []byte) bool { _, err := unpad(b); return err == nil }, pad(nil, "a"), pad(nil, strings.Repeat("x", 16)), make([]byte, 16), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		name, err := unpad(b)
		if err == nil && len(b)%16 == 0 && !bytes.Equal(pad(nil, string(name)), b) {
			t.Errorf("%x is the padding of %q", b, name)
		}
	})
}

func TestNamesAllocateTheirResultAlone(t *testing.T) {
	n := testNames()
	for _, name := range []string{"x", "an ordinary name.txt", strings.Repeat("x", MaxName)} {
		enc, room := must(n.Encrypt(testDir, name)), make([]byte, 0, MaxName+1)
		text := []byte(enc)
		wantNoAllocs(t, "decrypting into a buffer", func() { must(n.AppendDecrypted(room, testDir, text)) })
		wantAllocs(t, "encrypting", 1, func() { must(n.Encrypt(testDir, name)) })
		if len(name) > 1 { // Go has strings of one byte ready
			wantAllocs(t, "decrypting", 1, func() { must(n.Decrypt(testDir, enc)) })
		}
	}
}

func TestANameIsAppendedToWhatIsThere(t *testing.T) {
	n := testNames()
	enc := []byte(must(n.Encrypt(testDir, "a name")))
	if got, err := n.AppendDecrypted([]byte("before "), testDir, enc); err != nil || string(got) != "before a name" {
		t.Errorf("%q, %v", got, err)
	}
	_, err := n.AppendDecrypted([]byte("before "), testFile, enc)
	wantError(t, err, ErrAuthentication)
}

func BenchmarkEncryptName(b *testing.B) {
	n := testNames()
	for b.Loop() {
		must(n.Encrypt(testDir, "an ordinary name.txt"))
	}
}

func BenchmarkDecryptName(b *testing.B) {
	n := testNames()
	enc := must(n.Encrypt(testDir, "an ordinary name.txt"))
	for b.Loop() {
		must(n.Decrypt(testDir, enc))
	}
}
