package providertest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"kmsfs/kmsprovider"
)

// promise is something that works.
type promise struct {
	name  string
	check func(ctx context.Context, t *testing.T, f Fixture)
	alias bool // it is about aliases
}

func promises() []promise {
	return []promise{
		{name: "data keys have 32 bytes and are fresh at each call", check: dataKeysAreFresh},
		{name: "decrypt returns the data key that was wrapped", check: dataKeyRoundTrip},
		{name: "decrypt returns what was encrypted at all sizes up to 4096 bytes", check: encryptRoundTrip},
		{name: "a nil context and an empty one are the same", check: nilContextIsEmpty},
		{name: "contexts with the same pairs are the same", check: pairsHaveNoOrder},
		{name: "an alias is accepted wherever a key is", check: aliasNamesKey, alias: true},
		{name: "describe key tells of a key by its ID", check: describeNamed(func(f Fixture) string { return f.KeyID })},
		{name: "describe key resolves an alias to the key's ARN", check: describeNamed(func(f Fixture) string { return f.Alias }), alias: true},
		{name: "describe key tells that a key is disabled", check: describeDisabled},
		{name: "re-encrypt moves to another key and context", check: reEncryptMoves},
		{name: "results and arguments are the caller's", check: buffersAreTheCallers},
		{name: "concurrent calls do not disturb each other", check: concurrentUse},
	}
}

// sampleContext has what kmsfs binds data keys to, in shape.
func sampleContext() kmsprovider.Context {
	return kmsprovider.Context{
		"kmsfs:volume": "000102030405060708090a0b0c0d0e0f",
		"kmsfs:file":   "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
	}
}

// generate returns a data key under the fixture's key and the sample context.
func generate(ctx context.Context, t *testing.T, f Fixture) (plaintext, wrapped []byte) {
	t.Helper()
	plaintext, wrapped, err := f.Provider.GenerateDataKey(ctx, f.KeyID, sampleContext())
	if err != nil {
		t.Fatalf("generate data key: %v", err)
	}
	return plaintext, wrapped
}

// wantDecrypt fails unless wrapped opens to want.
func wantDecrypt(ctx context.Context, t *testing.T, f Fixture, keyID string, wrapped []byte, ec kmsprovider.Context, want []byte) {
	t.Helper()
	got, err := f.Provider.Decrypt(ctx, keyID, wrapped, ec)
	if err != nil {
		t.Fatalf("decrypt: %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("decrypt returned %d bytes that differ from the %d encrypted", len(got), len(want))
	}
}

func dataKeysAreFresh(ctx context.Context, t *testing.T, f Fixture) {
	seen := make(map[string]bool)
	for range 8 {
		plaintext, wrapped := generate(ctx, t, f)
		if len(plaintext) != kmsprovider.DataKeySize {
			t.Fatalf("data key of %d bytes", len(plaintext))
		}
		if len(wrapped) > kmsprovider.MaxCiphertext {
			t.Fatalf("wrapped key of %d bytes", len(wrapped))
		}
		if bytes.Contains(wrapped, plaintext) {
			t.Fatal("the wrapped key holds its plaintext")
		}
		if seen[string(plaintext)] || seen[string(wrapped)] || bytes.Equal(plaintext, make([]byte, len(plaintext))) {
			t.Fatal("data key is not fresh")
		}
		seen[string(plaintext)], seen[string(wrapped)] = true, true
	}
}

func dataKeyRoundTrip(ctx context.Context, t *testing.T, f Fixture) {
	plaintext, wrapped := generate(ctx, t, f)
	for range 2 {
		wantDecrypt(ctx, t, f, f.KeyID, wrapped, sampleContext(), plaintext)
	}
}

func encryptRoundTrip(ctx context.Context, t *testing.T, f Fixture) {
	for _, size := range []int{1, 31, 32, 33, 4095, kmsprovider.MaxPlaintext} {
		plaintext := bytes.Repeat([]byte{0xa5}, size)
		wrapped, err := f.Provider.Encrypt(ctx, f.KeyID, plaintext, sampleContext())
		if err != nil {
			t.Fatalf("encrypt %d bytes: %v", size, err)
		}
		again, err := f.Provider.Encrypt(ctx, f.KeyID, plaintext, sampleContext())
		if err != nil {
			t.Fatalf("encrypt %d bytes: %v", size, err)
		}
		if bytes.Equal(wrapped, again) || len(wrapped) > kmsprovider.MaxCiphertext {
			t.Fatalf("encrypt %d bytes: %d bytes of ciphertext, equal to the next one: %t", size, len(wrapped), bytes.Equal(wrapped, again))
		}
		wantDecrypt(ctx, t, f, f.KeyID, wrapped, sampleContext(), plaintext)
	}
}

func nilContextIsEmpty(ctx context.Context, t *testing.T, f Fixture) {
	plaintext, wrapped, err := f.Provider.GenerateDataKey(ctx, f.KeyID, nil)
	if err != nil {
		t.Fatalf("generate data key: %v", err)
	}
	wantDecrypt(ctx, t, f, f.KeyID, wrapped, kmsprovider.Context{}, plaintext)
}

func pairsHaveNoOrder(ctx context.Context, t *testing.T, f Fixture) {
	ec := kmsprovider.Context{}
	for i := range 20 {
		ec[fmt.Sprintf("key %d", i)] = fmt.Sprintf("value %d ä", i)
	}
	plaintext, wrapped, err := f.Provider.GenerateDataKey(ctx, f.KeyID, ec)
	if err != nil {
		t.Fatalf("generate data key: %v", err)
	}
	for range 4 { // maps iterate in another order each time
		wantDecrypt(ctx, t, f, f.KeyID, wrapped, maps.Clone(ec), plaintext)
	}
}

func aliasNamesKey(ctx context.Context, t *testing.T, f Fixture) {
	ec := sampleContext()
	plaintext, wrapped, err := f.Provider.GenerateDataKey(ctx, f.Alias, ec)
	if err != nil {
		t.Fatalf("generate data key: %v", err)
	}
	wantDecrypt(ctx, t, f, f.KeyID, wrapped, ec, plaintext)
	wantDecrypt(ctx, t, f, f.Alias, wrapped, ec, plaintext)
	encrypted, err := f.Provider.Encrypt(ctx, f.Alias, plaintext, ec)
	if err != nil {
		t.Fatalf("encrypt: %v", err)
	}
	rewrapped, err := f.Provider.ReEncrypt(ctx, encrypted, f.Alias, ec, f.Alias, nil)
	if err != nil {
		t.Fatalf("re-encrypt: %v", err)
	}
	wantDecrypt(ctx, t, f, f.KeyID, rewrapped, nil, plaintext)
}

// describeNamed describes the fixture's key by one of its names.
func describeNamed(name func(Fixture) string) func(context.Context, *testing.T, Fixture) {
	return func(ctx context.Context, t *testing.T, f Fixture) {
		info, err := f.Provider.DescribeKey(ctx, name(f))
		if err != nil {
			t.Fatalf("describe key %s: %v", name(f), err)
		}
		if info.KeyID != f.KeyID {
			t.Errorf("describe key %s: KeyID %q, want %q", name(f), info.KeyID, f.KeyID)
		}
		if info.Provider != f.Provider.Name() || info.State != kmsprovider.StateEnabled || info.Manager == "" || info.Origin == "" ||
			info.Created.IsZero() != (f.Alias == "") {
			t.Errorf("describe key %s: incomplete: %+v", name(f), info)
		}
	}
}

func describeDisabled(ctx context.Context, t *testing.T, f Fixture) {
	if f.DisableKey == nil {
		t.Skip("this fixture cannot disable keys")
	}
	f.DisableKey(t, f.KeyID)
	info, err := f.Provider.DescribeKey(ctx, f.KeyID)
	if err != nil || info.State != kmsprovider.StateDisabled {
		t.Fatalf("describe key: state %q, error %v", info.State, err)
	}
}

func reEncryptMoves(ctx context.Context, t *testing.T, f Fixture) {
	plaintext, wrapped := generate(ctx, t, f)
	toEC := kmsprovider.Context{"purpose": "moved"}
	rewrapped, err := f.Provider.ReEncrypt(ctx, wrapped, f.KeyID, sampleContext(), f.OtherKeyID, toEC)
	if err != nil {
		t.Fatalf("re-encrypt: %v", err)
	}
	if bytes.Contains(rewrapped, plaintext) {
		t.Fatal("the rewrapped key holds its plaintext")
	}
	wantDecrypt(ctx, t, f, f.OtherKeyID, rewrapped, toEC, plaintext)
	wantDecrypt(ctx, t, f, f.KeyID, wrapped, sampleContext(), plaintext) // the old one still opens
	for what, try := range map[string]struct {
		keyID string
		ec    kmsprovider.Context
	}{
		"the old key":     {f.KeyID, toEC},
		"the old context": {f.OtherKeyID, sampleContext()},
	} {
		if _, err := f.Provider.Decrypt(ctx, try.keyID, rewrapped, try.ec); err == nil {
			t.Errorf("the rewrapped key opens under %s", what)
		}
	}
}

func buffersAreTheCallers(ctx context.Context, t *testing.T, f Fixture) {
	plaintext, wrapped := generate(ctx, t, f)
	wantPlain, wantWrapped, ec := bytes.Clone(plaintext), bytes.Clone(wrapped), sampleContext()
	clear(plaintext) // as the caller must
	got, err := f.Provider.Decrypt(ctx, f.KeyID, wrapped, ec)
	if err != nil || !bytes.Equal(got, wantPlain) {
		t.Fatalf("decrypt after the plaintext was wiped: %v", err)
	}
	clear(got)
	if !bytes.Equal(wrapped, wantWrapped) || !maps.Equal(ec, sampleContext()) {
		t.Fatal("decrypt changed its arguments")
	}
	if _, err := f.Provider.Encrypt(ctx, f.KeyID, wantPlain, ec); err != nil {
		t.Fatalf("encrypt: %v", err)
	}
	wantDecrypt(ctx, t, f, f.KeyID, wrapped, ec, wantPlain) // also: encrypt left its plaintext alone
}

func concurrentUse(ctx context.Context, t *testing.T, f Fixture) {
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			ec := kmsprovider.Context{"worker": fmt.Sprint(worker)}
			for range 10 {
				if err := useAll(ctx, f, ec); err != nil {
					t.Errorf("worker %d: %v", worker, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// useAll goes through all methods once.
func useAll(ctx context.Context, f Fixture, ec kmsprovider.Context) error {
	plaintext, wrapped, err := f.Provider.GenerateDataKey(ctx, f.KeyID, ec)
	if err != nil {
		return err
	}
	rewrapped, err := f.Provider.ReEncrypt(ctx, wrapped, f.KeyID, ec, f.OtherKeyID, ec)
	if err != nil {
		return err
	}
	got, err := f.Provider.Decrypt(ctx, f.OtherKeyID, rewrapped, ec)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, plaintext) {
		return fmt.Errorf("another plaintext came back")
	}
	name := f.Alias
	if name == "" {
		name = f.KeyID
	}
	if _, err := f.Provider.Encrypt(ctx, name, plaintext, ec); err != nil {
		return err
	}
	_, err = f.Provider.DescribeKey(ctx, name)
	return err
}
