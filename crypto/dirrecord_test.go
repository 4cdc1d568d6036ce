package crypto

import (
	"bytes"
	"errors"
	"testing"
)

func TestDirRecordOpensToWhatWasSealed(t *testing.T) {
	c := NewDirCipher(testKey(1), testVolume)
	for _, r := range []DirRecord{{}, {ID: testDir}, {ID: testDir, BindingA: [16]byte{1}}, {BindingB: [16]byte{15: 1}}, goldenDir()} {
		b := bytes.Repeat([]byte{0xff}, DirRecordSize)
		if err := c.Seal(b, newStream(1), r); err != nil {
			t.Fatal(err)
		}
		if got, err := NewDirCipher(testKey(1), testVolume).Open(b); err != nil || got != r {
			t.Errorf("%+v, %v; want %+v", got, err, r)
		}
	}
}

func TestDirRecordIsWrittenIntoItsDestination(t *testing.T) {
	c := NewDirCipher(testKey(1), testVolume)
	page := bytes.Repeat([]byte{0xff}, 300)
	if err := c.Seal(page[10:10+DirRecordSize], newStream(1), goldenDir()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(page[10 : 10+DirRecordSize]); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(page[:10], page[290:]) || !bytes.Equal(page[10+DirRecordSize:], bytes.Repeat([]byte{0xff}, 300-10-DirRecordSize)) {
		t.Error("bytes around the record changed")
	}
}

func TestEveryByteOfADirRecordIsAuthenticated(t *testing.T) {
	c := NewDirCipher(goldenVK, testVolume)
	eachTampering(unhex(goldenDirRecord), func(at int, tampered []byte) {
		want := ErrAuthentication
		if at < len(dirMagic) {
			want = ErrMalformed
		}
		_, err := c.Open(tampered)
		wantError(t, err, want)
	})
	_, err := NewDirCipher(goldenVK, testDir).Open(unhex(goldenDirRecord))
	wantError(t, err, ErrAuthentication)
	_, err = NewDirCipher(testKey(9), testVolume).Open(unhex(goldenDirRecord))
	wantError(t, err, ErrAuthentication)
}

func TestDirRecordOfTheWrongShapeIsRefused(t *testing.T) {
	c := NewDirCipher(goldenVK, testVolume)
	for _, n := range []int{0, 1, 24, DirRecordSize - 1, DirRecordSize + 1} {
		_, err := c.Open(append(unhex(goldenDirRecord), 0)[:n])
		wantError(t, err, ErrMalformed)
		wantError(t, c.Seal(make([]byte, n), newStream(1), DirRecord{}), ErrMalformed)
	}
	for at := 32; at < dirPlainSize; at++ {
		plain := make([]byte, dirPlainSize)
		plain[at] = 1
		head := append([]byte(dirMagic), testDir[:]...)
		b := append(head, xaesSeal(goldenVK.Derive(LabelDir), goldenNonce, plain, append(bytes.Clone(head), testVolume[:]...))...)
		if _, err := c.Open(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("reserved byte %d: %v", at, err)
		}
	}
	wantError(t, c.Seal(make([]byte, DirRecordSize), dry{}, DirRecord{}), errNoRandom)
}

func TestBindingDependsOnKeyDirectoryAndName(t *testing.T) {
	seen := map[[16]byte]string{}
	for name, b := range map[string][16]byte{
		"a":              NewBinder(testKey(1)).Binding(testDir, "a"),
		"b":              NewBinder(testKey(1)).Binding(testDir, "b"),
		"a, longer":      NewBinder(testKey(1)).Binding(testDir, "aa"),
		"a, elsewhere":   NewBinder(testKey(1)).Binding(testFile, "a"),
		"a, another key": NewBinder(testKey(2)).Binding(testDir, "a"),
	} {
		if seen[b] != "" || b == [16]byte{} {
			t.Errorf("%s is bound like %s", name, seen[b])
		}
		seen[b] = name
	}
}

func FuzzOpenDirRecord(f *testing.F) {
	c := NewDirCipher(goldenVK, testVolume)
	parses := func(b []byte) bool { _, err := c.Open(b); return err == nil }
	addSeeds(f, parses, unhex(goldenDirRecord), make([]byte, DirRecordSize), unhex(goldenDirRecord)[:40], nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, unhex(goldenDirRecord)) {
			t.Errorf("%x opens, and was never sealed", b)
		}
	})
}
