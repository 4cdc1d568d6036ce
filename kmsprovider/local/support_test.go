package local

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

// clock is a clock that stands still until a test moves it.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time            { return time.Unix(0, c.ns.Load()).UTC() }
func (c *clock) pass(d time.Duration)      { c.ns.Add(int64(d)) }
func (c *clock) passDays(days int)         { c.pass(time.Duration(days) * 24 * time.Hour) }
func (c *clock) options(o Options) Options { o.Now = c.now; return o }

// store is a keystore with a clock, and calls that fail the test.
type store struct {
	*Keystore
	clock *clock
	t     testing.TB
}

func newStore(t testing.TB) *store {
	t.Helper()
	c := newClock()
	k, err := Create(context.Background(), c.options(testOptions(filepath.Join(scratch(t), "keystore.json"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return &store{Keystore: k, clock: c, t: t}
}

// another opens the same file once more, as another process would.
func (s *store) another() *store {
	s.t.Helper()
	k, err := Open(context.Background(), s.clock.options(testOptions(s.Path())))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { k.Close() })
	return &store{Keystore: k, clock: s.clock, t: s.t}
}

// as performs in for a caller and returns the error.
func (s *store) as(arn string, in Input) error {
	_, err := s.Do(context.Background(), Caller{ARN: arn, SourceIP: "127.0.0.1"}, in)
	return err
}

// try performs in for the root and returns the error.
func (s *store) try(in Input) error { return s.as(s.Root().ARN, in) }

// must performs in for the root.
func must[Output any](s *store, in Input) *Output {
	s.t.Helper()
	out, err := do[Output](context.Background(), s.Keystore, in)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// key makes a key and returns its ARN.
func (s *store) key() string {
	s.t.Helper()
	return must[CreateKeyOutput](s, &CreateKeyInput{}).KeyMetadata.ARN
}

// user makes a principal with a policy, and returns its ARN.
func (s *store) user(name, policy string) string {
	s.t.Helper()
	out := must[CreatePrincipalOutput](s, &CreatePrincipalInput{PrincipalName: name})
	if policy != "" {
		must[struct{}](s, &PutPrincipalPolicyInput{PrincipalName: name, Policy: policy})
	}
	return out.Principal.ARN
}

func (s *store) describe(keyID string) KeyMetadata {
	s.t.Helper()
	return must[DescribeKeyOutput](s, &DescribeKeyInput{KeyID: keyID}).KeyMetadata
}

// encrypt wraps a text under a key.
func (s *store) encrypt(keyID, text string, ec kmsprovider.Context) []byte {
	s.t.Helper()
	return must[EncryptOutput](s, &EncryptInput{KeyID: keyID, Plaintext: []byte(text), EncryptionContext: ec}).CiphertextBlob
}

// opens tells whether wrapped opens to text.
func (s *store) opens(wrapped []byte, text string, ec kmsprovider.Context) error {
	out, err := do[DecryptOutput](context.Background(), s.Keystore, &DecryptInput{CiphertextBlob: wrapped, EncryptionContext: ec})
	if err == nil && string(out.Plaintext) != text {
		err = errors.New("another plaintext came back")
	}
	return err
}

// code is the code of a refusal; "" for no error.
func code(err error) string {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return "no code: " + err.Error()
}

// wantCode fails unless err has the code; the empty one is success.
func wantCode(t testing.TB, what string, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s: %q, want %q (%v)", what, got, want, err)
	}
}

func number(n int) *int { return &n }
