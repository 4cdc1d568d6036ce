package crypto

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func largestSidecar() *Sidecar {
	s := &Sidecar{Volume: testVolume, File: testFile, Commitment: [32]byte(randomBytes(1, 32))}
	for range MaxWrappedKeys {
		s.Keys = append(s.Keys, WrappedKey{strings.Repeat("p", MaxProviderLen), strings.Repeat("k", MaxKeyIDLen), randomBytes(2, MaxWrappedLen)})
	}
	return s
}

func TestSidecarParsesToWhatWasMarshalled(t *testing.T) {
	for name, s := range map[string]*Sidecar{
		"least":  {Keys: []WrappedKey{{"p", "", []byte{0}}}},
		"golden": goldenSidecarValue(),
		"most":   largestSidecar(),
	} {
		b, err := s.Marshal()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := ParseSidecar(b); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: parsed %+v, %v", name, got, err)
		}
		if name == "most" && len(b) != MaxSidecarSize {
			t.Errorf("the largest sidecar has %d bytes, MaxSidecarSize is %d", len(b), MaxSidecarSize)
		}
	}
}

func TestSidecarKeepsNothingOfItsBytes(t *testing.T) {
	b := unhex(goldenSidecar)
	s := must(ParseSidecar(b))
	clear(b)
	if !reflect.DeepEqual(s, goldenSidecarValue()) {
		t.Error("the sidecar changed with the bytes it was parsed from")
	}
}

func TestSidecarIsWholeAndNothingMore(t *testing.T) {
	b := unhex(goldenSidecar)
	for n := range b {
		_, err := ParseSidecar(b[:n])
		wantError(t, err, ErrMalformed)
	}
	_, err := ParseSidecar(append(bytes.Clone(b), 0))
	wantError(t, err, ErrMalformed)
}

func TestSidecarOutOfItsLimitsIsRefused(t *testing.T) {
	with := func(change func(*Sidecar)) *Sidecar {
		s := goldenSidecarValue()
		change(s)
		return s
	}
	for name, s := range map[string]*Sidecar{
		"no keys":            with(func(s *Sidecar) { s.Keys = nil }),
		"nine keys":          with(func(s *Sidecar) { s.Keys = make([]WrappedKey, 9) }),
		"no provider":        with(func(s *Sidecar) { s.Keys[0].Provider = "" }),
		"a long provider":    with(func(s *Sidecar) { s.Keys[0].Provider = strings.Repeat("p", 256) }),
		"a long key ID":      with(func(s *Sidecar) { s.Keys[1].KeyID = strings.Repeat("k", 2049) }),
		"no wrapped key":     with(func(s *Sidecar) { s.Keys[1].Wrapped = nil }),
		"a long wrapped key": with(func(s *Sidecar) { s.Keys[1].Wrapped = make([]byte, 8193) }),
	} {
		if _, err := s.Marshal(); !errors.Is(err, ErrMalformed) {
			t.Errorf("marshalling %s: %v", name, err)
		}
	}

	const countAt = 8 + 1 + 16 + 16
	entry := func(provider, keyID, wrapped int) []byte {
		b := append([]byte{byte(provider)}, make([]byte, provider)...)
		b = append(append(b, byte(keyID), byte(keyID>>8)), make([]byte, keyID)...)
		return append(append(b, byte(wrapped), byte(wrapped>>8)), make([]byte, wrapped)...)
	}
	build := func(count byte, entries ...[]byte) []byte {
		b := append(bytes.Clone(unhex(goldenSidecar)[:countAt]), count)
		return append(append(b, bytes.Join(entries, nil)...), make([]byte, 32)...)
	}
	if _, err := ParseSidecar(build(1, entry(255, 2048, 8192))); err != nil {
		t.Errorf("an entry at its limits: %v", err)
	}
	nine := bytes.Repeat(entry(1, 1, 1), 9)
	for name, b := range map[string][]byte{
		"no keys":               build(0),
		"nine keys":             build(9, nine),
		"fewer keys than said":  build(3, entry(1, 1, 1), entry(1, 1, 1)),
		"more keys than said":   build(1, entry(1, 1, 1), entry(1, 1, 1)),
		"no provider":           build(1, entry(0, 1, 1)),
		"a long key ID":         build(1, entry(1, 2049, 1)),
		"no wrapped key":        build(1, entry(1, 1, 0)),
		"a long wrapped key":    build(1, entry(1, 1, 8193)),
		"version 2":             append([]byte("kmsfskey\x02"), unhex(goldenSidecar)[9:]...),
		"a directory's magic":   append([]byte("kmsfsdir"), unhex(goldenSidecar)[8:]...),
		"a length past the end": append(unhex(goldenSidecar)[:countAt], 1, 255),
	} {
		if _, err := ParseSidecar(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("parsing %s: %v", name, err)
		}
	}
}

// TestCommitmentCoversAllButTheWrappedKeys: what it leaves uncovered is what rewrap replaces, each entry of which the
// KMS authenticates by itself.
func TestCommitmentCoversAllButTheWrappedKeys(t *testing.T) {
	b := unhex(goldenSidecar)
	const listFrom = 8 + 1 + 16 + 16
	listTo := len(b) - 32
	eachTampering(b, func(at int, tampered []byte) {
		s, err := ParseSidecar(tampered)
		if err == nil {
			err = s.CheckCommitment(goldenSecret)
		}
		if (at < listFrom || at >= listTo) && err == nil {
			t.Errorf("byte %d: not detected", at)
		}
		if at >= 9 && (at < listFrom || at >= listTo) {
			wantError(t, err, ErrAuthentication)
		}
	})

	s := must(ParseSidecar(b))
	s.Keys = []WrappedKey{{"aws", "arn:aws:kms:eu-central-1:1:key/2", []byte("rewrapped")}}
	if err := must(ParseSidecar(must(s.Marshal()))).CheckCommitment(goldenSecret); err != nil {
		t.Errorf("after a rewrap: %v", err)
	}
	for name, secret := range map[string]*Key{
		"other data key":   NewDataKeyCipher(goldenVK, testVolume).FileSecret(testKey(9)),
		"other volume key": NewDataKeyCipher(testKey(9), testVolume).FileSecret(goldenDEK),
		"the data key":     goldenDEK,
	} {
		if err := s.CheckCommitment(secret); !errors.Is(err, ErrAuthentication) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrappedDataKeyOpensOnlyForItsFile(t *testing.T) {
	wrapped, err := NewDataKeyCipher(goldenVK, testVolume).Wrap(newStream(1), testFile, goldenDEK)
	if err != nil || len(wrapped) != 72 || bytes.Contains(wrapped, goldenDEK.Bytes()[:8]) {
		t.Fatalf("wrapped %x, %v", wrapped, err)
	}
	if got, err := NewDataKeyCipher(goldenVK, testVolume).Unwrap(testFile, wrapped); err != nil || !got.Equal(goldenDEK) {
		t.Errorf("unwrapped: %v", err)
	}
	refused := func(name string, vk *Key, volume, file ID, wrapped []byte, want error) {
		t.Helper()
		if k, err := NewDataKeyCipher(vk, volume).Unwrap(file, wrapped); k != nil || !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("other volume key", testKey(9), testVolume, testFile, wrapped, ErrAuthentication)
	refused("other volume", goldenVK, testDir, testFile, wrapped, ErrAuthentication)
	refused("other file", goldenVK, testVolume, testDir, wrapped, ErrAuthentication)
	refused("IDs exchanged", goldenVK, testFile, testVolume, wrapped, ErrAuthentication)
	refused("cut short", goldenVK, testVolume, testFile, wrapped[:71], ErrMalformed)
	refused("longer", goldenVK, testVolume, testFile, append(bytes.Clone(wrapped), 0), ErrMalformed)
	refused("nothing", goldenVK, testVolume, testFile, nil, ErrMalformed)
	eachTampering(wrapped, func(_ int, tampered []byte) {
		refused("tampered", goldenVK, testVolume, testFile, tampered, ErrAuthentication)
	})
	_, err = NewDataKeyCipher(goldenVK, testVolume).Wrap(dry{}, testFile, goldenDEK)
	wantError(t, err, errNoRandom)
}

func FuzzParseSidecar(f *testing.F) {
	addSeeds(f, func(b []byte) bool { _, err := ParseSidecar(b); return err == nil },
		unhex(goldenSidecar), must((&Sidecar{Keys: []WrappedKey{{"p", "", []byte{0}}}}).Marshal()),
		unhex(goldenSidecar)[:60], []byte(sidecarMagic), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSidecar(b)
		if err != nil {
			wantError(t, err, ErrMalformed)
			return
		}
		if again, err := s.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x parses and marshals to %x, %v", b, again, err)
		}
		if len(b) > MaxSidecarSize {
			t.Errorf("a sidecar of %d bytes parses", len(b))
		}
	})
}

func FuzzUnwrapDataKey(f *testing.F) {
	c := NewDataKeyCipher(goldenVK, testVolume)
	parses := func(b []byte) bool { _, err := c.Unwrap(testFile, b); return err == nil }
	addSeeds(f, parses, unhex(goldenWrapped), make([]byte, 72), nil)
	f.Fuzz(func(t *testing.T, b []byte) {
		if parses(b) && !bytes.Equal(b, unhex(goldenWrapped)) {
			t.Errorf("%x unwraps, and was never wrapped", b)
		}
	})
}
