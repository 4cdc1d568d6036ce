package envelope

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"kmsfs/kmsprovider"
)

var someContext = kmsprovider.Context{"purpose": "test", "empty": ""}

func TestEachKeyCostsOneCallAndOpensAlone(t *testing.T) {
	s := newKeystore(t)
	arns := []string{s.key(), s.key(), s.key()}
	for n := 1; n <= len(arns); n++ {
		m := wrap(t, s.keyring(arns[:n]...), someContext)
		want := map[string]int{"GenerateDataKey": 1}
		if n > 1 {
			want["Encrypt"] = n - 1
		}
		s.wantCalls("encryption", want)
		if len(m.DataKey) != 32 || len(m.Keys) != n {
			t.Fatalf("%d keys: data key of %d bytes, wrapped %d times", n, len(m.DataKey), len(m.Keys))
		}
		for i, k := range m.Keys {
			if k.Provider != "aws-kms" || string(k.Info) != arns[i] {
				t.Errorf("wrapped key %d of %d is %s, want that of %s", i, n, k, arns[i])
			}
			dataKey, err := unwrap(t, s.keyring(arns[i]), SuiteCommit, someContext, m.Keys...)
			if err != nil || !bytes.Equal(dataKey, m.DataKey) {
				t.Errorf("key %d of %d opens to another data key (%v)", i, n, err)
			}
			s.wantCalls("decryption with one key", map[string]int{"Decrypt": 1})
		}
	}
}

func TestAliasesAreLookedUpOnce(t *testing.T) {
	s := newKeystore(t)
	arn := s.key()
	if err := s.store.CreateAlias(t.Context(), "alias/name", arn); err != nil {
		t.Fatal(err)
	}
	scope, id, _ := strings.Cut(arn, "key/")
	for _, name := range []string{"local:alias/name", "local:" + id, "local:" + scope + "alias/name", scope + "alias/name"} {
		ring := s.keyring(name)
		for range 2 {
			m := wrap(t, ring, someContext)
			if got := string(m.Keys[0].Info); got != arn {
				t.Fatalf("%s: the message names %s, want %s", name, got, arn)
			}
			if _, err := unwrap(t, ring, SuiteCommit, someContext, m.Keys...); err != nil {
				t.Fatal(err)
			}
		}
		s.wantCalls(name, map[string]int{"DescribeKey": 1, "GenerateDataKey": 2, "Decrypt": 2})
	}
	for _, name := range []string{arn, "local:" + arn} {
		wrap(t, s.keyring(name), someContext)
		s.wantCalls(name, map[string]int{"GenerateDataKey": 1})
	}
	// Decryption looks up as well, but not for a message that no KMS has a part in.
	ring := s.keyring("local:alias/name")
	_, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{Provider: "raw", Info: []byte(arn), Ciphertext: []byte("x")})
	wantErrors(t, "raw keys", err, ErrNoKey)
	s.wantCalls("raw keys", map[string]int{})
}

func TestALookUpThatFailedIsMadeAgain(t *testing.T) {
	var described int
	var answer error = kmsprovider.ErrThrottled
	arn := "arn:aws:kms:us-east-1:111122223333:key/1"
	p := answers{
		describe: func() (kmsprovider.KeyInfo, error) { described++; return kmsprovider.KeyInfo{KeyID: arn}, answer },
		decrypt:  func(context.Context, string) ([]byte, error) { return make([]byte, 32), nil },
	}
	ring, err := NewKMSKeyring(p.open, []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/a"}})
	if err != nil {
		t.Fatal(err)
	}
	wrapped := EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")}
	_, err = unwrap(t, ring, SuiteCommit, nil, wrapped, wrapped)
	wantErrors(t, "a failed look-up", err, ErrNoKey, kmsprovider.ErrThrottled)
	if described != 1 {
		t.Errorf("looked up %d times for one message", described)
	}
	answer = nil
	if _, err := unwrap(t, ring, SuiteCommit, nil, wrapped); err != nil || described != 2 {
		t.Errorf("error %v after %d look-ups", err, described)
	}
	// An answer that is no key's name is the KMS's fault.
	arn = "arn:aws:kms:us-east-1:111122223333:alias/a"
	ring, _ = NewKMSKeyring(p.open, []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/a"}})
	_, err = unwrap(t, ring, SuiteCommit, nil, wrapped)
	wantErrors(t, "an alias for an answer", err, ErrNoKey, kmsprovider.ErrUnavailable)
	if errors.Is(err, kmsprovider.ErrInvalidInput) {
		t.Errorf("the user is blamed: %v", err)
	}
}

func TestKeysThatAreNotOursAreNotAsked(t *testing.T) {
	s := newKeystore(t)
	m := wrap(t, s.keyring(s.key(), s.key()), someContext)
	other := s.keyring(s.key(), s.key())
	s.wantCalls("encryption", map[string]int{"GenerateDataKey": 1, "Encrypt": 1})
	s.opened = 0
	_, err := unwrap(t, other, SuiteCommit, someContext, m.Keys...)
	wantErrors(t, "keys of others", err, ErrNoKey)
	if none, ok := errors.AsType[*noKeyError](err); !ok || len(none.causes) != 0 {
		t.Errorf("causes in %v", err)
	}
	s.wantCalls("keys of others", map[string]int{})
	if s.opened != 0 {
		t.Errorf("the provider was opened %d times", s.opened)
	}
}

func TestARawKeyByTheNameOfAKMSKeyIsNotOurs(t *testing.T) {
	s := newKeystore(t)
	ring := s.keyring(s.key())
	k := wrap(t, ring, nil).Keys[0]
	raw := EncryptedDataKey{"raw", k.Info, k.Ciphertext}
	_, err := unwrap(t, ring, SuiteCommit, nil, raw, EncryptedDataKey{kmsProvider, []byte("x"), k.Ciphertext})
	wantErrors(t, "a raw key", err, ErrNoKey)
	s.wantCalls("a raw key", map[string]int{"GenerateDataKey": 1})
}

func TestWhyAKMSKeyDidNotOpenIsTold(t *testing.T) {
	s := newKeystore(t)
	arn, other := s.key(), s.key()
	m := wrap(t, s.keyring(arn, other), someContext)
	s.wantCalls("encryption", map[string]int{"GenerateDataKey": 1, "Encrypt": 1})
	mislabeled := EncryptedDataKey{kmsProvider, []byte(arn), m.Keys[1].Ciphertext}
	changed := m.Keys[0]
	changed.Ciphertext = append(bytes.Clone(changed.Ciphertext), 0)
	empty := m.Keys[0]
	empty.Ciphertext = nil
	ring := s.keyring(arn)
	for _, c := range []struct {
		name string
		ec   kmsprovider.Context
		key  EncryptedDataKey
		want error
	}{
		{"another context", kmsprovider.Context{"purpose": "other", "empty": ""}, m.Keys[0], kmsprovider.ErrInvalidCiphertext},
		{"part of the context", kmsprovider.Context{"purpose": "test"}, m.Keys[0], kmsprovider.ErrInvalidCiphertext},
		{"no context", nil, m.Keys[0], kmsprovider.ErrInvalidCiphertext},
		{"changed bytes", someContext, changed, kmsprovider.ErrInvalidCiphertext},
		{"no bytes", someContext, empty, kmsprovider.ErrInvalidCiphertext},
		{"wrapped by another key", someContext, mislabeled, kmsprovider.ErrIncorrectKey},
	} {
		_, err := unwrap(t, ring, SuiteCommit, c.ec, c.key)
		wantErrors(t, c.name, err, ErrNoKey, c.want)
		if err != nil && !strings.Contains(err.Error(), arn) {
			t.Errorf("%s: the key is not named: %v", c.name, err)
		}
		s.wantCalls(c.name, map[string]int{"Decrypt": 1})
	}
	if err := s.store.DisableKey(t.Context(), arn); err != nil {
		t.Fatal(err)
	}
	_, err := unwrap(t, ring, SuiteCommit, someContext, m.Keys...)
	wantErrors(t, "a disabled key", err, ErrNoKey, kmsprovider.ErrKeyDisabled)
	err = ring.OnEncrypt(t.Context(), &EncryptionMaterials{Suite: SuiteCommit})
	wantErrors(t, "a disabled key, encryption", err, kmsprovider.ErrKeyDisabled)
	s.wantCalls("a disabled key", map[string]int{"Decrypt": 1, "GenerateDataKey": 1})

	// The next key opens it.
	dataKey, err := unwrap(t, s.keyring(arn, other), SuiteCommit, someContext, m.Keys...)
	if err != nil || !bytes.Equal(dataKey, m.DataKey) {
		t.Errorf("the second key: %v", err)
	}
	s.wantCalls("the second key", map[string]int{"Decrypt": 2})
}

func TestEveryCauseOfTheKMSIsMatched(t *testing.T) {
	arn := "arn:aws:kms:us-east-1:111122223333:key/1"
	u := kmsprovider.KeyURI{Provider: "aws", KeyID: arn}
	for _, want := range []error{
		kmsprovider.ErrAccessDenied, kmsprovider.ErrKeyDisabled, kmsprovider.ErrKeyNotFound, kmsprovider.ErrThrottled,
		kmsprovider.ErrUnavailable, kmsprovider.ErrNotUsable, context.DeadlineExceeded, // the provider's own, not the caller's
	} {
		p := answers{decrypt: func(context.Context, string) ([]byte, error) { return nil, want }}
		ring, err := NewKMSKeyring(p.open, []kmsprovider.KeyURI{u, u})
		if err != nil {
			t.Fatal(err)
		}
		_, err = unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")})
		wantErrors(t, "decryption", err, ErrNoKey, want)
		ring, _ = NewKMSKeyring(func(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error) { return nil, want }, []kmsprovider.KeyURI{u})
		_, err = unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")})
		wantErrors(t, "opening the provider", err, ErrNoKey, want)
		wantErrors(t, "opening the provider to encrypt", ring.OnEncrypt(t.Context(), &EncryptionMaterials{Suite: SuiteCommit}), want)
	}
}

func TestACallerWhoGivesUpIsNotToldOfKeys(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	arn := "arn:aws:kms:us-east-1:111122223333:key/1"
	asked := 0
	p := answers{decrypt: func(ctx context.Context, _ string) ([]byte, error) { asked++; cancel(); return nil, ctx.Err() }}
	u := kmsprovider.KeyURI{Provider: "aws", KeyID: arn}
	ring, _ := NewKMSKeyring(p.open, []kmsprovider.KeyURI{u, u})
	wrapped := EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")}
	err := ring.OnDecrypt(ctx, &DecryptionMaterials{Suite: SuiteCommit}, []EncryptedDataKey{wrapped, wrapped})
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoKey) || asked != 1 {
		t.Errorf("error %v after %d calls, want the context's after one", err, asked)
	}
}

func TestAWaiterForALookUpCanGiveUp(t *testing.T) {
	started, release := make(chan struct{}), make(chan struct{})
	p := answers{describe: func() (kmsprovider.KeyInfo, error) {
		close(started)
		<-release
		return kmsprovider.KeyInfo{}, kmsprovider.ErrUnavailable
	}}
	ring, _ := NewKMSKeyring(p.open, []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/a"}})
	keys := []EncryptedDataKey{{kmsProvider, []byte("arn:aws:kms:us-east-1:111122223333:key/1"), []byte("x")}}
	first := make(chan error)
	go func() { first <- ring.OnDecrypt(context.Background(), &DecryptionMaterials{Suite: SuiteCommit}, keys) }()
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := ring.OnDecrypt(ctx, &DecryptionMaterials{Suite: SuiteCommit}, keys)
	if !errors.Is(err, context.Canceled) || errors.Is(err, ErrNoKey) {
		t.Errorf("the waiter: %v", err)
	}
	close(release)
	wantErrors(t, "the first", <-first, ErrNoKey, kmsprovider.ErrUnavailable)
}

func TestADataKeyHasTheLengthOfItsSuite(t *testing.T) {
	s := newKeystore(t)
	arn := s.key()
	ring := s.keyring(arn)
	if len(suites) != 11 {
		t.Fatalf("%d suites", len(suites))
	}
	for suite := range suites {
		for _, size := range []int{1, 16, 24, 31, 32, 33, 4096} {
			wrapped, err := s.store.Encrypt(t.Context(), arn, bytes.Repeat([]byte{9}, size), nil)
			if err != nil {
				t.Fatal(err)
			}
			dataKey, err := unwrap(t, ring, suite, nil, EncryptedDataKey{kmsProvider, []byte(arn), wrapped})
			if size == suite.KeySize() {
				if err != nil || len(dataKey) != size {
					t.Errorf("%s with %d bytes: %v", suite, size, err)
				}
				continue
			}
			wantErrors(t, suite.String(), err, ErrNoKey, kmsprovider.ErrInvalidCiphertext)
		}
		m := &EncryptionMaterials{Suite: suite}
		err := ring.OnEncrypt(t.Context(), m)
		if (err == nil) != (suite.KeySize() == 32) || (err == nil) != (m.DataKey != nil) {
			t.Errorf("%s: made a data key of %d bytes, error %v", suite, len(m.DataKey), err)
		}
	}
}

func TestADataKeyOfAnotherLengthIsWiped(t *testing.T) {
	returned := bytes.Repeat([]byte{7}, 31)
	p := answers{decrypt: func(context.Context, string) ([]byte, error) { return returned, nil }}
	arn := "arn:aws:kms:us-east-1:111122223333:key/1"
	ring, _ := NewKMSKeyring(p.open, []kmsprovider.KeyURI{{Provider: "aws", KeyID: arn}})
	if _, err := unwrap(t, ring, SuiteCommit, nil, EncryptedDataKey{kmsProvider, []byte(arn), []byte("x")}); err == nil {
		t.Fatal("opened")
	}
	if !bytes.Equal(returned, make([]byte, 31)) {
		t.Error("the data key is still there")
	}
}

func TestKeysThatNobodyElseCouldOpenAreRefused(t *testing.T) {
	for _, keys := range [][]kmsprovider.KeyURI{
		nil,
		{{Provider: "age", KeyID: "age1x"}},
		{{Provider: "local", KeyID: "alias/a"}, {Provider: "vault", KeyID: "transit/a"}},
		{{Provider: "aws", KeyID: "alias/a"}},
		{{Provider: "aws", KeyID: "arn:aws:kms:us-east-1:1:key/1"}},
		{{Provider: "local", KeyID: ""}},
		{{}},
	} {
		ring, err := NewKMSKeyring(func(context.Context, kmsprovider.KeyURI) (kmsprovider.Provider, error) { panic("opened") }, keys)
		if ring != nil {
			t.Errorf("%v: taken", keys)
		}
		wantErrors(t, "keys", err, kmsprovider.ErrInvalidInput)
	}
}

// TestTheLookUpIsSharedByAllCallers runs many at once: the race detector looks on.
func TestTheLookUpIsSharedByAllCallers(t *testing.T) {
	s := newKeystore(t)
	arn := s.key()
	if err := s.store.CreateAlias(t.Context(), "alias/name", arn); err != nil {
		t.Fatal(err)
	}
	ring := s.keyring("local:alias/name")
	const callers = 8
	done := make(chan error)
	for range callers {
		go func() { done <- ring.OnEncrypt(t.Context(), &EncryptionMaterials{Suite: SuiteCommit}) }()
	}
	for range callers {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a caller waits for ever")
		}
	}
	s.wantCalls("callers at once", map[string]int{"DescribeKey": 1, "GenerateDataKey": callers})
}
