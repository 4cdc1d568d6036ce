package envelope

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"runtime"
	"testing"
)

// allocated is how many bytes f allocates. Other tests must not run beside it.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A length in a message is not believed before its bytes are there.
func TestLengthsInAMessageAllocateNothing(t *testing.T) {
	framed := reference{suite: SuiteCommit, frameLength: DefaultMaxFrameLength, plaintext: text(100)}.message(t)
	h, err := ParseHeader(bytes.NewReader(framed), 0)
	if err != nil {
		t.Fatal(err)
	}
	head := framed[:len(h.stored())]
	lying := bytes.Clone(framed)
	binary.BigEndian.PutUint32(lying[len(head)+finalHead-4:], DefaultMaxFrameLength)
	regular := append(bytes.Clone(head), 0, 0, 0, 1)
	whole := reference{suite: SuiteCommit, plaintext: text(100)}.message(t)
	wholeHead, err := ParseHeader(bytes.NewReader(whole), 0)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint64(whole[len(wholeHead.stored())+nonceSize:], maxNonFramed)
	manyKeys := append(bytes.Clone(head[:37]), 0xff, 0xff)
	for name, m := range map[string][]byte{
		"frame":       regular,
		"final frame": lying,
		"body":        whole,
		"keys":        manyKeys,
	} {
		o := allowAll()
		o.Provisional = true
		var err error
		if n := allocated(func() { _, _, err = decrypt(m, o) }); n > 2<<20 || err == nil {
			t.Errorf("%s: %d bytes allocated, %v", name, n, err)
		}
	}
	if n := allocated(func() {
		_, err = Encrypt(context.Background(), io.Discard, bytes.NewReader(text(100)), EncryptOptions{Keyring: fixedKeyring{}, FrameLength: DefaultMaxFrameLength})
	}); n > 2<<20 || err != nil {
		t.Errorf("encrypting 100 bytes: %d bytes allocated, %v", n, err)
	}
}

// 65,535 keys of three parts of 65,535 bytes would be 12 GiB.
func TestHeadersHaveALimit(t *testing.T) {
	head := append([]byte{2, 0x04, 0x78}, make([]byte, 32+2)...)
	head = append(head, 0xff, 0xff)
	key := []byte{0xff, 0xff, 1}
	key = append(key, make([]byte, 0xfffe)...)
	keys := make([]io.Reader, 1000)
	for i := range keys {
		keys[i] = bytes.NewReader(key)
	}
	var err error
	n := allocated(func() {
		_, err = ParseHeader(io.MultiReader(append([]io.Reader{bytes.NewReader(head)}, keys...)...), 0)
	})
	if !errors.Is(err, ErrTooLarge) || n > 10*maxHeader { // all that it ever grew to, together
		t.Errorf("%d bytes allocated, %v", n, err)
	}
}

// Memory does not grow with the message, whatever its shape.
func TestAllocationsDoNotGrowWithTheMessage(t *testing.T) {
	const small, large = 8 << 20, 64 << 20
	encrypt := func(n int, w io.Writer) {
		if _, err := Encrypt(context.Background(), w, io.LimitReader(zeroReader{}, int64(n)), EncryptOptions{Keyring: fixedKeyring{}, Workers: 2}); err != nil {
			t.Fatal(err)
		}
	}
	open := func(m []byte) {
		o := allowAll()
		o.Provisional, o.Workers = true, 2
		if _, err := Decrypt(context.Background(), io.Discard, bytes.NewReader(m), o); err != nil {
			t.Fatal(err)
		}
	}
	message := func(n int) []byte {
		var b bytes.Buffer
		encrypt(n, &b)
		return b.Bytes()
	}
	notFramed := func(n int) []byte { return reference{suite: SuiteAES256, plaintext: make([]byte, n)}.message(t) }
	for name, run := range map[string]func(n int) func(){
		"encrypt":            func(n int) func() { return func() { encrypt(n, io.Discard) } },
		"decrypt":            func(n int) func() { m := message(n); return func() { open(m) } },
		"decrypt not framed": func(n int) func() { m := notFramed(n); return func() { open(m) } },
	} {
		few, many := allocated(run(small)), allocated(run(large))
		if many > few+1<<20 || many > 12<<20 {
			t.Errorf("%s: %d bytes allocated for %d, and %d for %d", name, few, small, many, large)
		}
	}
}

// A frame more allocates nothing.
func TestAllocationsDoNotGrowWithTheFrames(t *testing.T) {
	const frameLength = 1000
	count := func(n int) (seal, open float64) {
		m := reference{suite: SuiteCommit, frameLength: frameLength, plaintext: text(n)}.message(t)
		o := allowAll()
		o.Workers = 1
		seal = testing.AllocsPerRun(5, func() {
			if _, err := Encrypt(context.Background(), io.Discard, io.LimitReader(zeroReader{}, int64(n)), EncryptOptions{Keyring: fixedKeyring{}, Suite: SuiteCommit, FrameLength: frameLength, Workers: 1}); err != nil {
				t.Fatal(err)
			}
		})
		return seal, testing.AllocsPerRun(5, func() {
			if _, err := Decrypt(context.Background(), io.Discard, bytes.NewReader(m), o); err != nil {
				t.Fatal(err)
			}
		})
	}
	// Both sizes go round all the batches, so that each has its memory.
	sealFew, openFew := count(2000 * frameLength)
	sealMany, openMany := count(12000 * frameLength)
	const slack = 40 // of the scheduler, and of batches that grew late; 10,000 frames are between the two
	if sealMany > sealFew+slack || openMany > openFew+slack {
		t.Errorf("10,000 frames more: %.0f allocations to seal became %.0f, %.0f to open %.0f", sealFew, sealMany, openFew, openMany)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// The last sequence number is only for a final frame: as a frame's it would be taken for the mark of one.
func TestSequenceNumbersEnd(t *testing.T) {
	_, aead, err := newCipher(referenceKey)
	if err != nil {
		t.Fatal(err)
	}
	f := frames{aead: aead, messageID: make([]byte, 32), length: 10}
	for n, want := range map[int]error{20: nil, 29: nil, 30: ErrTooLarge, 31: ErrTooLarge} {
		plaintext := text(n)
		w := frameWriter{frames: f, src: newSource(bytes.NewReader(plaintext)), next: math.MaxUint32 - 2}
		var body, got bytes.Buffer
		p := pipeline{workers: 1, batches: 2, produce: w.fill, work: w.seal, finish: func() {}}
		p.consume = func(b *batch) error { body.Write(b.wire); return nil }
		if err := p.run(context.Background()); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", n, err, want)
		}
		if want != nil {
			continue
		}
		r := frameReader{frames: f, src: newSource(&body), next: math.MaxUint32 - 2}
		p = pipeline{workers: 1, batches: 2, produce: r.fill, work: r.open, finish: func() {}}
		p.consume = func(b *batch) error { got.Write(b.plain); return nil }
		if err := p.run(context.Background()); err != nil || !bytes.Equal(got.Bytes(), plaintext) {
			t.Errorf("%d bytes: %x, %v", n, got.Bytes(), err)
		}
	}
	// After frame 4294967294 another can only be a final one.
	wrapped := append(binary.BigEndian.AppendUint32(nil, 0), make([]byte, 100)...)
	r := frameReader{frames: f, src: newSource(bytes.NewReader(wrapped)), next: math.MaxUint32}
	if b := new(batch); r.fill(b) || !errors.Is(b.err, ErrMalformed) {
		t.Errorf("a sequence number that wraps: %v", b.err)
	}
}

func TestFrameLengthsHaveLimits(t *testing.T) {
	for n, ok := range map[int]bool{-1: false, 1: true, DefaultMaxFrameLength: true, DefaultMaxFrameLength + 1: false} {
		_, err := Encrypt(context.Background(), io.Discard, bytes.NewReader(nil), EncryptOptions{Keyring: fixedKeyring{}, FrameLength: n})
		if (err == nil) != ok || !ok && !errors.Is(err, ErrTooLarge) {
			t.Errorf("encrypt in frames of %d: %v", n, err)
		}
	}
	o := allowAll()
	o.MaxFrameLength = 99
	for n, want := range map[int]error{99: nil, 100: ErrTooLarge} {
		if _, _, err := decrypt(reference{suite: SuiteCommit, frameLength: n}.message(t), o); !errors.Is(err, want) {
			t.Errorf("decrypt frames of %d: %v, want %v", n, err, want)
		}
	}
}
