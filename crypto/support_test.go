package crypto

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
)

// sizes are those at which a block begins, ends or is missing.
var sizes = []int{0, 1, BlockSize - 1, BlockSize, BlockSize + 1, 2*BlockSize - 1, 2 * BlockSize, 5*BlockSize + 17}

// stream is a repeatable random source, safe for concurrent use, that counts its reads.
type stream struct {
	mu    sync.Mutex
	rng   *rand.ChaCha8
	reads int
}

func newStream(seed byte) *stream { return &stream{rng: rand.NewChaCha8([32]byte{seed})} }

func (s *stream) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return s.rng.Read(p)
}

var errNoRandom = errors.New("no randomness today")

// dry is a random source that fails.
type dry struct{}

func (dry) Read([]byte) (int, error) { return 0, errNoRandom }

func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = newStream(seed).Read(b)
	return b
}

func testKey(first byte) *Key {
	b := make([]byte, KeySize)
	for i := range b {
		b[i] = first + byte(i)
	}
	return must(NewKey(b))
}

func testID(first byte) (id ID) {
	for i := range id {
		id[i] = first + byte(i)
	}
	return id
}

var testVolume, testFile, testDir = testID(0xa0), testID(0xb0), testID(0xc0)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

// xaesSeal seals with a nonce of the test's choice.
func xaesSeal(k *Key, nonce, plain, aad []byte) []byte {
	return must(NewXAES(k).Seal(nil, bytes.NewReader(nonce), plain, aad))
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("error %v, want %v", got, want)
	}
}

func wantPanic(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", what)
		}
	}()
	f()
}

func wantNoAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	wantAllocs(t, what, 0, f)
}

func wantAllocs(t *testing.T, what string, want float64, f func()) {
	t.Helper()
	if raceDetector {
		return
	}
	if n := testing.AllocsPerRun(200, f); n != want {
		t.Errorf("%s allocates %v times, want %v", what, n, want)
	}
}

// eachTampering calls f with copies of b in which one bit of one byte is flipped, for every byte.
func eachTampering(b []byte, f func(at int, tampered []byte)) {
	for i := range b {
		for _, flip := range []byte{0x01, 0x80} {
			tampered := bytes.Clone(b)
			tampered[i] ^= flip
			f(i, tampered)
		}
	}
}

// addSeeds gives the seeds to f, and fails unless there are some and parses accepts at least one of them: a fuzz target
// whose seeds are all refused never gets past the first check.
func addSeeds(f *testing.F, parses func([]byte) bool, seeds ...[]byte) {
	f.Helper()
	good := 0
	for _, s := range seeds {
		f.Add(s)
		if parses(s) {
			good++
		}
	}
	if good == 0 {
		f.Fatalf("none of %d seeds parses", len(seeds))
	}
}

var _ io.Reader = dry{}
