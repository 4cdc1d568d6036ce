package envelope

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// What is released of a message that turns out wrong: the frames before the damage, and never its end.
func TestWhatIsReleasedOfADamagedMessage(t *testing.T) {
	const frameLength, n = 100, 950
	flip := func(fromEnd int) func([]byte) []byte {
		return func(m []byte) []byte { m[len(m)-fromEnd] ^= 1; return m }
	}
	cut := func(m []byte) []byte { return m[:len(m)-1] }
	more := func(m []byte) []byte { return append(m, 0) }
	const last = finalHead + 50 + tagSize
	for name, c := range map[string]struct {
		suite       Suite
		frameLength int
		provisional bool
		damage      func([]byte) []byte
		released    int
	}{
		"unsigned, frame 8":                 {SuiteCommit, frameLength, false, flip(last + 116 + 1), 800},
		"unsigned, last frame":              {SuiteCommit, frameLength, false, flip(1), 900},
		"unsigned, cut":                     {SuiteCommit, frameLength, false, cut, 900},
		"unsigned, trailing":                {SuiteCommit, frameLength, false, more, 900},
		"signed, signature":                 {SuiteCommitSigned, frameLength, false, flip(1), 900},
		"signed, cut":                       {SuiteCommitSigned, frameLength, false, cut, 900},
		"signed, trailing":                  {SuiteCommitSigned, frameLength, false, more, 900},
		"one frame, signature":              {SuiteCommitSigned, 65536, false, flip(1), 0},
		"one frame, trailing":               {SuiteCommit, 65536, false, more, 0},
		"not framed, tag":                   {SuiteCommit, 0, false, flip(1), 0},
		"not framed, trailing":              {SuiteCommit, 0, false, more, 0},
		"not framed, signature":             {SuiteCommitSigned, 0, false, flip(1), 0},
		"not framed, provisional, tag":      {SuiteCommit, 0, true, flip(1), 0}, // one piece: held until its end anyway
		"not framed, provisional, cut":      {SuiteCommit, 0, true, cut, 0},
		"not framed, provisional, trailing": {SuiteCommit, 0, true, more, 0},
	} {
		r := reference{suite: c.suite, frameLength: c.frameLength, plaintext: text(n)}
		o := allowAll()
		o.Provisional = c.provisional
		got, _, err := decrypt(c.damage(r.message(t)), o)
		if err == nil || !bytes.Equal(got, r.plaintext[:c.released]) {
			t.Errorf("%s: released %d bytes, want %d; %v", name, len(got), c.released, err)
		}
	}
}

// A body of several pieces that is not framed goes out early only if it may.
func TestOnlyAProvisionalDestinationSeesAnUnverifiedBody(t *testing.T) {
	r := reference{suite: SuiteAES256Signed, plaintext: text(3*pieceSize + 5)}
	m := r.message(t)
	damaged := bytes.Clone(m)
	damaged[len(m)-1] ^= 1
	for _, provisional := range []bool{false, true} {
		o := allowAll()
		o.Provisional = provisional
		if got, _, err := decrypt(m, o); err != nil || !bytes.Equal(got, r.plaintext) {
			t.Errorf("provisional %t: %d bytes, %v", provisional, len(got), err)
		}
		want := 0
		if provisional {
			want = 3 * pieceSize
		}
		if got, _, err := decrypt(damaged, o); err == nil || len(got) != want {
			t.Errorf("provisional %t, damaged: %d bytes, want %d; %v", provisional, len(got), want, err)
		}
	}
	o := allowAll()
	o.MaxFrameLength = len(r.plaintext) - 1
	if got, _, err := decrypt(m, o); !errors.Is(err, ErrTooLarge) || len(got) > 0 {
		t.Errorf("body over the limit: %d bytes, %v", len(got), err)
	}
	o.Provisional = true
	if got, _, err := decrypt(m, o); err != nil || !bytes.Equal(got, r.plaintext) {
		t.Errorf("provisional body over the limit: %d bytes, %v", len(got), err)
	}
}

// A pipe that delivers frame after frame gets plaintext as it comes, without waiting for more.
func TestFramesAreReleasedAsTheyCome(t *testing.T) {
	r := reference{suite: SuiteCommitSigned, frameLength: 10, plaintext: text(35)}
	m := r.message(t)
	h, err := ParseHeader(bytes.NewReader(m), 0)
	if err != nil {
		t.Fatal(err)
	}
	head := len(h.stored())
	in, feed := io.Pipe()
	out, sink := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := Decrypt(context.Background(), sink, in, allowAll())
		sink.Close()
		result <- err
	}()
	if _, err := feed.Write(m[:head]); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		frame := m[head+i*(frameHead+10+tagSize):][:frameHead+10+tagSize]
		if _, err := feed.Write(frame); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10)
		if _, err := io.ReadFull(out, got); err != nil || !bytes.Equal(got, r.plaintext[i*10:][:10]) {
			t.Fatalf("frame %d: %x, %v", i+1, got, err)
		}
	}
	if _, err := feed.Write(m[head+3*(frameHead+10+tagSize):]); err != nil {
		t.Fatal(err)
	}
	feed.Close()
	if rest, err := io.ReadAll(out); err != nil || !bytes.Equal(rest, r.plaintext[30:]) || <-result != nil {
		t.Errorf("the end: %x, %v", rest, err)
	}
}

// slowWriter lets through one Write at a time.
type slowWriter struct {
	written atomic.Int64
	turn    chan struct{}
}

func (w *slowWriter) Write(b []byte) (int, error) {
	<-w.turn
	w.written.Add(int64(len(b)))
	return len(b), nil
}

// countingReader gives zeros without end, and counts them.
type countingReader struct{ read atomic.Int64 }

func (r *countingReader) Read(p []byte) (int, error) {
	clear(p)
	r.read.Add(int64(len(p)))
	return len(p), nil
}

func TestTheReaderIsOnlyAFewFramesAhead(t *testing.T) {
	for _, frameLength := range []int{100, 65536, 1 << 20} {
		src, dst := new(countingReader), &slowWriter{turn: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		result := make(chan error, 1)
		const workers = 2
		go func() {
			_, err := Encrypt(ctx, dst, src, EncryptOptions{Keyring: fixedKeyring{}, FrameLength: frameLength, Workers: workers})
			result <- err
		}()
		for range 20 {
			dst.turn <- struct{}{}
		}
		batch := int64(max(batchSize, frameLength))
		if ahead := src.read.Load() - dst.written.Load(); ahead > (2*workers+2)*batch+sourceSize {
			t.Errorf("frames of %d: %d bytes ahead", frameLength, ahead)
		}
		cancel()
		close(dst.turn)
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("frames of %d: %v", frameLength, err)
		}
	}
}

// blockedReader gives what it has and then waits.
type blockedReader struct {
	r       io.Reader
	release chan struct{}
}

func (b blockedReader) Read(p []byte) (int, error) {
	if n, err := b.r.Read(p); err == nil {
		return n, nil
	}
	<-b.release
	return 0, io.EOF
}

func TestTheContextEndsACallWhoseSourceHangs(t *testing.T) {
	m := reference{suite: SuiteCommit, frameLength: 16, plaintext: text(40)}.message(t)
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	told := func(int64) { cancel() } // when the first frames are through
	_, err := Encrypt(ctx, io.Discard, blockedReader{bytes.NewReader(text(1000)), release},
		EncryptOptions{Keyring: fixedKeyring{}, FrameLength: 100, Progress: told})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("encrypt: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	o := allowAll()
	o.Progress = func(int64) { cancel() }
	// The whole message is there, and only its end is not seen yet.
	if _, err := Decrypt(ctx, io.Discard, blockedReader{bytes.NewReader(m), release}, o); !errors.Is(err, context.Canceled) {
		t.Errorf("decrypt: %v", err)
	}
}

func TestErrorsOfSourceAndDestinationComeBack(t *testing.T) {
	broken := errors.New("broken")
	bad := writerFunc(func([]byte) (int, error) { return 0, broken })
	src := io.MultiReader(bytes.NewReader(text(1000)), errorReader{broken})
	if _, err := Encrypt(context.Background(), bad, bytes.NewReader(nil), EncryptOptions{Keyring: fixedKeyring{}}); !errors.Is(err, broken) {
		t.Errorf("encrypt to it: %v", err)
	}
	if _, err := Encrypt(context.Background(), io.Discard, src, EncryptOptions{Keyring: fixedKeyring{}, FrameLength: 10}); !errors.Is(err, broken) {
		t.Errorf("encrypt from it: %v", err)
	}
	m := reference{suite: SuiteCommit, frameLength: 16, plaintext: text(40)}.message(t)
	if _, err := Decrypt(context.Background(), bad, bytes.NewReader(m), allowAll()); !errors.Is(err, broken) {
		t.Errorf("decrypt to it: %v", err)
	}
	for n := range len(m) + 1 {
		_, err := Decrypt(context.Background(), io.Discard, io.MultiReader(bytes.NewReader(m[:n]), errorReader{broken}), allowAll())
		if !errors.Is(err, broken) || errors.Is(err, ErrMalformed) {
			t.Errorf("decrypt from it after %d bytes: %v", n, err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// Nothing of a run is left behind but for a source that hangs.
func TestNoGoroutineIsLeft(t *testing.T) {
	m := reference{suite: SuiteCommitSigned, frameLength: 16, plaintext: text(4000)}.message(t)
	before := runtime.NumGoroutine()
	for n := 0; n < len(m); n += 97 {
		if _, _, err := decrypt(m[:n], allowAll()); err == nil {
			t.Fatal("cut message was taken")
		}
	}
	// One that has said that it is done counts until it has ended.
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
