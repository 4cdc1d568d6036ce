package crypto

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestSymlinkTargetsOfEveryLengthOpen(t *testing.T) {
	s := NewSymlinkCipher(testKey(1), testVolume)
	for n := 1; n <= MaxSymlink; n++ {
		target := strings.Repeat("t", n)
		raw, err := s.Seal(newStream(1), target)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		text := EncodeSymlink(raw)
		if got, ok := SymlinkPlainLen(len(text)); !ok || got != n {
			t.Errorf("%d bytes: %d characters are said to hold %d, %v", n, len(text), got, ok)
		}
		if inline := len(text) <= 4095; inline != (n <= MaxInlineSymlink) {
			t.Errorf("%d bytes fit in a backing symlink: %v", n, inline)
		}
		decoded, err := DecodeSymlink(text)
		if err != nil || !bytes.Equal(decoded, raw) {
			t.Fatalf("%d bytes: decoded %x, %v", n, decoded, err)
		}
		if got, err := s.Open(decoded); err != nil || got != target {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestLengthsThatNoSymlinkHasAreRefused(t *testing.T) {
	valid := map[int]bool{}
	for n := 1; n <= MaxSymlink; n++ {
		valid[len(EncodeSymlink(make([]byte, n+40)))] = true
	}
	for n := -5; n < 5600; n++ {
		if _, ok := SymlinkPlainLen(n); ok != valid[n] {
			t.Errorf("SymlinkPlainLen(%d): %v", n, ok)
		}
	}
	if _, ok := SymlinkPlainLen(len(ID{}.String())); ok {
		t.Error("an ID is taken for a target")
	}
}

func TestSymlinkOpensOnlyAsSealedForItsVolume(t *testing.T) {
	s := NewSymlinkCipher(testKey(1), testVolume)
	raw := must(s.Seal(newStream(1), "../target"))
	eachTampering(raw, func(_ int, tampered []byte) {
		_, err := s.Open(tampered)
		wantError(t, err, ErrAuthentication)
	})
	_, err := NewSymlinkCipher(testKey(1), testDir).Open(raw)
	wantError(t, err, ErrAuthentication)
	_, err = NewSymlinkCipher(testKey(2), testVolume).Open(raw)
	wantError(t, err, ErrAuthentication)
	for _, n := range []int{0, 39, 40, 40 + MaxSymlink + 1} {
		_, err := s.Open(make([]byte, n))
		wantError(t, err, ErrMalformed)
	}
	if bytes.Equal(raw[:24], must(s.Seal(newStream(2), "../target"))[:24]) {
		t.Error("the nonce does not come from the random source")
	}
}

func TestTargetsThatNoSymlinkMayHaveAreRefused(t *testing.T) {
	s := NewSymlinkCipher(testKey(1), testVolume)
	for target, want := range map[string]error{"": ErrMalformed, "a\x00b": ErrMalformed, strings.Repeat("t", 4096): ErrTooLarge} {
		if _, err := s.Seal(newStream(1), target); !errors.Is(err, want) {
			t.Errorf("%.10q: %v", target, err)
		}
	}
	_, err := s.Open(xaesSeal(testKey(1).Derive(LabelSymlink), goldenNonce, []byte("a\x00b"), testVolume[:]))
	wantError(t, err, ErrMalformed)
	_, err = s.Seal(dry{}, "target")
	wantError(t, err, errNoRandom)
}

func FuzzDecodeSymlink(f *testing.F) {
	addSeeds(f, func(b []byte) bool { _, err := DecodeSymlink(string(b)); return err == nil },
		[]byte(goldenSymlink), []byte(goldenSymlink+"\n"), []byte("AB"), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := DecodeSymlink(string(b))
		if err == nil && EncodeSymlink(raw) != string(b) {
			t.Errorf("%q decodes, and encodes to %q", b, EncodeSymlink(raw))
		}
	})
}

func FuzzOpenSymlink(f *testing.F) {
	s := NewSymlinkCipher(goldenVK, testVolume)
	golden := must(DecodeSymlink(goldenSymlink))
	parses := func(b []byte) bool { _, err := s.Open(b); return err == nil }
	addSeeds(f, parses, golden, golden[:40], nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, golden) {
			t.Errorf("%x opens, and was never sealed", b)
		}
	})
}
