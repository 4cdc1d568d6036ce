package envelope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"kmsfs/kmsprovider"
)

var allSuites = slices.Sorted(maps.Keys(suites))

func TestEverySuiteIsReadInBothShapes(t *testing.T) {
	if len(allSuites) != 11 {
		t.Fatalf("%d suites, the specification has 11", len(allSuites))
	}
	const frameLength = 100
	for _, suite := range allSuites {
		for _, n := range []int{0, 1, frameLength - 1, frameLength, frameLength + 1, 10*frameLength + 7} {
			for name, r := range map[string]reference{
				"framed":               {frameLength: frameLength},
				"full final frame":     {frameLength: frameLength, fullFinal: true},
				"not framed":           {},
				"framed, random IV":    {frameLength: frameLength, randomIVs: true},
				"required context":     {frameLength: frameLength, required: kmsprovider.Context{"who": "me", "a": ""}},
				"whole in one frame":   {frameLength: 1 << 20},
				"frames of one byte":   {frameLength: 1},
				"several wrapped keys": {frameLength: frameLength, keys: []EncryptedDataKey{{Provider: "other"}, {}, fixedEDK}},
			} {
				r.suite, r.plaintext = suite, text(n)
				r.context = kmsprovider.Context{"purpose": "test", "ä": ""}
				o := allowAll()
				o.Context = r.required
				got, h, err := decrypt(r.message(t), o)
				if err != nil || !bytes.Equal(got, r.plaintext) {
					t.Errorf("%s, %s, %d bytes: got %d bytes, %v", suite, name, n, len(got), err)
				} else if h.Suite != suite || h.FrameLength != r.frameLength || h.Context["purpose"] != "test" {
					t.Errorf("%s, %s: header %+v", suite, name, h)
				}
			}
		}
	}
}

func TestWhatIsEncryptedDecrypts(t *testing.T) {
	for _, suite := range []Suite{SuiteCommitSigned, SuiteCommit} {
		for _, frameLength := range []int{1, 16, 4096, 65536, 300000} {
			for _, n := range []int{0, 1, frameLength - 1, frameLength, frameLength + 1, 2 * frameLength, 9*frameLength + 5} {
				for _, workers := range []int{1, 3} {
					plaintext := text(n)
					var message, got bytes.Buffer
					_, err := Encrypt(context.Background(), &message, bytes.NewReader(plaintext), EncryptOptions{
						Keyring: fixedKeyring{}, Suite: suite, FrameLength: frameLength, Workers: workers})
					if err != nil {
						t.Fatal(err)
					}
					if _, err = Decrypt(context.Background(), &got, &message, DecryptOptions{Keyring: fixedKeyring{}, Workers: workers}); err != nil || !bytes.Equal(got.Bytes(), plaintext) {
						t.Fatalf("%s, frames of %d, %d bytes: got %d, %v", suite, frameLength, n, got.Len(), err)
					}
				}
			}
		}
	}
}

func TestDefaultsAreSignedFramesOf64KiB(t *testing.T) {
	var message bytes.Buffer
	h, err := Encrypt(context.Background(), &message, bytes.NewReader(text(100)), EncryptOptions{Keyring: fixedKeyring{}})
	if err != nil || h.Version != 2 || h.Suite != 0x0578 || h.FrameLength != 65536 || len(h.MessageID) != 32 || len(h.Commitment) != 32 {
		t.Fatalf("%+v, %v", h, err)
	}
	parsed, err := ParseHeader(&message, 0)
	if err != nil || fmt.Sprintf("%+v", parsed) != fmt.Sprintf("%+v", h) {
		t.Errorf("parsed %+v, %v\nwrote  %+v", parsed, err, h)
	}
}

// Official tools refuse a final frame as long as the frame length.
func TestFinalFrameIsEmptyAfterWholeFrames(t *testing.T) {
	for n, final := range map[int]uint32{0: 0, 9: 9, 10: 0, 15: 5, 20: 0} {
		var message bytes.Buffer
		h, err := Encrypt(context.Background(), &message, bytes.NewReader(text(n)), EncryptOptions{Keyring: fixedKeyring{}, Suite: SuiteCommit, FrameLength: 10})
		if err != nil {
			t.Fatal(err)
		}
		r := frameReader{frames: frames{length: 10}, src: newSource(&message), next: 1}
		if _, err := r.src.extend(nil, len(h.stored())); err != nil {
			t.Fatal(err)
		}
		var b batch
		for r.fill(&b) {
		}
		if !b.final || b.err != nil || b.first != uint32(n/10)+1 || uint32(len(b.wire)-finalHead-tagSize) != final {
			t.Errorf("%d bytes: final %t frame %d of %d bytes, want %d; %v", n, b.final, b.first, len(b.wire)-finalHead-tagSize, final, b.err)
		}
	}
}

func TestReadersThatGiveLittleAtATime(t *testing.T) {
	plaintext := text(1000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"a byte":                  iotest.OneByteReader,
		"half":                    iotest.HalfReader,
		"the end with data":       iotest.DataErrReader,
		"a byte, and end with it": func(r io.Reader) io.Reader { return iotest.DataErrReader(iotest.OneByteReader(r)) },
	} {
		var message, got bytes.Buffer
		if _, err := Encrypt(context.Background(), &message, wrap(bytes.NewReader(plaintext)), EncryptOptions{Keyring: fixedKeyring{}, FrameLength: 64}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err := Decrypt(context.Background(), &got, wrap(&message), DecryptOptions{Keyring: fixedKeyring{}})
		if err != nil || !bytes.Equal(got.Bytes(), plaintext) {
			t.Errorf("%s: %d bytes, %v", name, got.Len(), err)
		}
	}
}

func TestRequiredContextIsNotStoredAndMustBeGivenAgain(t *testing.T) {
	var message bytes.Buffer
	ec := kmsprovider.Context{"tenant": "secret-tenant", "purpose": "backup"}
	h, err := Encrypt(context.Background(), &message, bytes.NewReader(text(10)), EncryptOptions{Keyring: fixedKeyring{},
		Context: ec, RequiredContextKeys: []string{"tenant"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := h.Context["tenant"]; ok || h.Context["purpose"] != "backup" || bytes.Contains(message.Bytes(), []byte("tenant")) {
		t.Errorf("stored: %v", h.Context)
	}
	for name, c := range map[string]struct {
		given kmsprovider.Context
		want  error
	}{
		"all of it":                  {ec, nil},
		"the required pair":          {kmsprovider.Context{"tenant": "secret-tenant"}, nil},
		"nothing":                    {nil, ErrNotAuthentic},
		"another value":              {kmsprovider.Context{"tenant": "other"}, ErrNotAuthentic},
		"a pair too many":            {kmsprovider.Context{"tenant": "secret-tenant", "more": "x"}, ErrNotAuthentic},
		"another value for a stored": {kmsprovider.Context{"tenant": "secret-tenant", "purpose": "x"}, ErrContext},
	} {
		got, _, err := decrypt(message.Bytes(), DecryptOptions{Keyring: fixedKeyring{}, Context: c.given})
		if !errors.Is(err, c.want) || (err == nil) != bytes.Equal(got, text(10)) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestProgressIsTheTotalSoFar(t *testing.T) {
	const n = 3<<20 + 11
	var message bytes.Buffer
	var told []int64
	record := func(n int64) { told = append(told, n) }
	if _, err := Encrypt(context.Background(), &message, bytes.NewReader(text(n)), EncryptOptions{Keyring: fixedKeyring{}, Progress: record}); err != nil {
		t.Fatal(err)
	}
	if len(told) < 3 || !slices.IsSorted(told) || told[len(told)-1] != n {
		t.Errorf("encryption told %v, want up to %d", told, n)
	}
	for name, m := range map[string][]byte{
		"framed":     message.Bytes(),
		"not framed": reference{suite: SuiteCommit, plaintext: text(n)}.message(t),
	} {
		told = nil
		o := allowAll()
		o.Progress = record
		if _, _, err := decrypt(m, o); err != nil {
			t.Fatal(err)
		}
		want := int64(len(m))
		if len(told) < 3 || !slices.IsSorted(told) || told[len(told)-1] != want {
			t.Errorf("%s: decryption told %v, want up to %d", name, told, want)
		}
	}
}
