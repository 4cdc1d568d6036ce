package envelope

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
)

// marshal writes a header's bytes from its fields. Version 1 is not written outside of tests.
func marshal(t testing.TB, h *Header) []byte {
	t.Helper()
	body, err := h.marshalBody()
	if err != nil {
		t.Fatal(err)
	}
	if h.Version == 1 {
		contentType := body[len(body)-5]
		body = slices.Concat([]byte{1, typeAuthenticated}, body[1:len(body)-4], make([]byte, 4), []byte{nonceSize})
		body = binary.BigEndian.AppendUint32(body, uint32(h.FrameLength))
		if contentType != body[len(body)-10] {
			t.Fatal("content type is not where it should be")
		}
		body = append(body, h.IV...)
	}
	return append(body, h.Tag...)
}

// Every header that is taken is written again with the same bytes: no two spellings of one header exist.
func FuzzMalleability(f *testing.F) {
	for _, r := range kinds(f) {
		m := r.message(f)
		h, err := ParseHeader(bytes.NewReader(m), 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m[:len(h.stored())])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		src := bytes.NewReader(b)
		h, err := ParseHeader(src, 0)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("error of no kind: %v", err)
			}
			return
		}
		read := b[:len(b)-src.Len()]
		if got := marshal(t, h); !bytes.Equal(got, read) || !bytes.Equal(h.stored(), read) {
			t.Fatalf("read  %x\nwrote %x\nkept  %x", read, got, h.stored())
		}
	})
}

// anyHeader has the header of a message authenticate whatever it holds, so that fuzzing gets to the body: it replaces
// commitment and tag by the right ones.
func anyHeader(b []byte) []byte {
	h, err := ParseHeader(bytes.NewReader(b), 0)
	if err != nil {
		return b
	}
	rest := b[len(h.stored()):]
	key, commitment, err := deriveKeys(h.Suite, h.MessageID, referenceKey[:h.Suite.KeySize()])
	if err != nil {
		return b
	}
	if h.Commitment != nil {
		copy(h.Body[len(h.Body)-commitmentSize:], commitment)
	}
	_, aead, err := newCipher(key)
	if err != nil {
		return b
	}
	h.Tag = aead.Seal(nil, h.IV, nil, h.Body)
	return slices.Concat(h.stored(), rest)
}

// FuzzDecrypt takes any bytes. It must not panic, hang or allocate without bound, and an error is of a known kind.
func FuzzDecrypt(f *testing.F) {
	for _, r := range kinds(f) {
		f.Add(r.message(f), false)
		f.Add(r.message(f), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, provisional bool) {
		o := allowAll()
		o.Keyring, o.Provisional, o.Workers, o.MaxFrameLength = anyKeyring{}, provisional, 1, 1<<20
		m := anyHeader(b)
		var out bytes.Buffer
		_, err := Decrypt(context.Background(), &out, bytes.NewReader(m), o)
		if err != nil && !slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) }) {
			t.Fatalf("error of no kind: %v", err)
		}
		if out.Len() > len(m) {
			t.Fatalf("%d bytes of plaintext from %d", out.Len(), len(m))
		}
		if err == nil {
			if _, err := Decrypt(context.Background(), io.Discard, bytes.NewReader(append(m, 0)), o); !errors.Is(err, ErrMalformed) {
				t.Fatalf("with a byte more: %v", err)
			}
		}
	})
}

// anyKeyring opens every data key.
type anyKeyring struct{ fixedKeyring }

func (anyKeyring) OnDecrypt(_ context.Context, m *DecryptionMaterials, _ []EncryptedDataKey) error {
	m.DataKey = bytes.Clone(referenceKey[:m.Suite.KeySize()])
	return nil
}

// TestFuzzSeedsAreMessages makes sure that fuzzing begins with what decrypts.
func TestFuzzSeedsAreMessages(t *testing.T) {
	for name, r := range kinds(t) {
		m := r.message(t)
		if got, _, err := decrypt(anyHeader(m), allowAll()); err != nil || !bytes.Equal(got, r.plaintext) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(anyHeader(m), m) {
			t.Errorf("%s: the header of a right message was changed", name)
		}
	}
	for _, target := range []string{"FuzzDecrypt", "FuzzMalleability"} {
		if seeds, err := os.ReadDir("testdata/fuzz/" + target); err != nil || len(seeds) == 0 {
			t.Errorf("no seeds of %s: %v", target, err)
		}
	}
}
