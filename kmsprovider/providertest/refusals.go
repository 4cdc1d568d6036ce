package providertest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// refusal is a call that must fail with the error want.
type refusal struct {
	name     string
	want     error
	disabled bool // KeyID is disabled after the sample was made
	alias    bool // it is about aliases
	// calls makes the call, once or with many variations, and returns the error
	// of each.
	calls func(ctx context.Context, f Fixture, s sample) []error
}

// sample is a data key wrapped under the fixture's KeyID and sampleContext.
type sample struct{ plaintext, wrapped []byte }

func (r refusal) check(ctx context.Context, t *testing.T, f Fixture) {
	var s sample
	s.plaintext, s.wrapped = generate(ctx, t, f)
	wantDecrypt(ctx, t, f, f.KeyID, s.wrapped, sampleContext(), s.plaintext)
	if r.disabled {
		f.DisableKey(t, f.KeyID)
	}
	for _, err := range judge(r.calls(ctx, f, s), r.want, r.name, f.Deviations) {
		t.Error(err)
	}
}

func refusals() []refusal {
	var all []refusal
	for _, part := range [][]refusal{contextRefusals(), keyRefusals(), ciphertextRefusals(), inputRefusals(), disabledRefusals(), cancelRefusals()} {
		all = append(all, part...)
	}
	return all
}

// decryptUnder tries the sample under each context.
func decryptUnder(contexts ...kmsprovider.Context) func(context.Context, Fixture, sample) []error {
	return func(ctx context.Context, f Fixture, s sample) []error {
		var errs []error
		for _, ec := range contexts {
			_, err := f.Provider.Decrypt(ctx, f.KeyID, s.wrapped, ec)
			errs = append(errs, err)
		}
		return errs
	}
}

// changed is the sample context with one pair set; an empty value removes it.
func changed(key, value string) kmsprovider.Context {
	ec := sampleContext()
	ec[key] = value
	if value == "" {
		delete(ec, key)
	}
	return ec
}

func contextRefusals() []refusal {
	invalid := kmsprovider.ErrInvalidCiphertext
	return []refusal{
		{name: "decrypt with a changed context is refused", want: invalid,
			calls: decryptUnder(changed("kmsfs:file", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfefe"), changed("kmsfs:file", "F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF"))},
		{name: "decrypt with a missing pair is refused", want: invalid, calls: decryptUnder(changed("kmsfs:file", ""), nil)},
		{name: "decrypt with an extra pair is refused", want: invalid, calls: decryptUnder(changed("extra", "pair"))},
		{name: "decrypt with the same letters in other pairs is refused", want: invalid,
			calls: func(ctx context.Context, f Fixture, _ sample) []error {
				var errs []error
				for _, try := range [][2]kmsprovider.Context{
					{{"a": "b"}, {"ab": ""}},
					{{"ab": ""}, {"a": "b"}},
					{{"a": "bc", "d": "e"}, {"ab": "c", "d": "e"}},
					{{"a": "1", "b": "2"}, {"a": "2", "b": "1"}},
				} {
					_, wrapped, err := f.Provider.GenerateDataKey(ctx, f.KeyID, try[0])
					if err == nil {
						_, err = f.Provider.Decrypt(ctx, f.KeyID, wrapped, try[1])
					}
					errs = append(errs, err)
				}
				return errs
			}},
		{name: "re-encrypt from a wrong context is refused", want: invalid,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				_, err := f.Provider.ReEncrypt(ctx, s.wrapped, f.KeyID, changed("extra", "pair"), f.OtherKeyID, nil)
				return []error{err}
			}},
	}
}

func keyRefusals() []refusal {
	return []refusal{
		{name: "decrypt under another key is refused", want: kmsprovider.ErrIncorrectKey,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				_, err := f.Provider.Decrypt(ctx, f.OtherKeyID, s.wrapped, sampleContext())
				return []error{err}
			}},
		{name: "re-encrypt from another key is refused", want: kmsprovider.ErrIncorrectKey,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				_, err := f.Provider.ReEncrypt(ctx, s.wrapped, f.OtherKeyID, sampleContext(), f.KeyID, nil)
				return []error{err}
			}},
		{name: "an unknown key is not found", want: kmsprovider.ErrKeyNotFound,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				return allMethods(ctx, f, s, f.UnknownKeyID)
			}},
		{name: "an unknown alias is not found", want: kmsprovider.ErrKeyNotFound, alias: true,
			calls: func(ctx context.Context, f Fixture, _ sample) []error {
				_, err := f.Provider.DescribeKey(ctx, f.Alias+"-of-nothing")
				_, _, err2 := f.Provider.GenerateDataKey(ctx, f.Alias+"-of-nothing", nil)
				return []error{err, err2}
			}},
	}
}

// allMethods calls every method with keyID in each place of a key.
func allMethods(ctx context.Context, f Fixture, s sample, keyID string) []error {
	_, described := f.Provider.DescribeKey(ctx, keyID)
	_, to := f.Provider.ReEncrypt(ctx, s.wrapped, f.KeyID, sampleContext(), keyID, nil)
	return append(keyUses(ctx, f, s, keyID), described, to)
}

// keyUses makes the calls that use the key keyID on the sample.
func keyUses(ctx context.Context, f Fixture, s sample, keyID string) []error {
	ec := sampleContext()
	_, _, generated := f.Provider.GenerateDataKey(ctx, keyID, ec)
	_, encrypted := f.Provider.Encrypt(ctx, keyID, s.plaintext, ec)
	_, decrypted := f.Provider.Decrypt(ctx, keyID, s.wrapped, ec)
	_, from := f.Provider.ReEncrypt(ctx, s.wrapped, keyID, ec, f.OtherKeyID, ec)
	return []error{generated, encrypted, decrypted, from}
}

func ciphertextRefusals() []refusal {
	decryptEach := func(variants func(wrapped []byte) [][]byte) func(context.Context, Fixture, sample) []error {
		return func(ctx context.Context, f Fixture, s sample) []error {
			var errs []error
			for _, v := range variants(s.wrapped) {
				_, err := f.Provider.Decrypt(ctx, f.KeyID, v, sampleContext())
				errs = append(errs, err)
			}
			return errs
		}
	}
	invalid := kmsprovider.ErrInvalidCiphertext
	return []refusal{
		{name: "a wrapped key with any byte changed is refused", want: invalid,
			calls: decryptEach(func(wrapped []byte) (all [][]byte) {
				for i := range wrapped {
					v := bytes.Clone(wrapped)
					v[i] ^= 1 << (i % 8)
					all = append(all, v)
				}
				return all
			})},
		{name: "a truncated wrapped key is refused", want: invalid,
			calls: decryptEach(func(wrapped []byte) (all [][]byte) {
				for i := 1; i < len(wrapped); i++ {
					all = append(all, wrapped[:i])
				}
				return all
			})},
		{name: "a wrapped key with bytes appended is refused", want: invalid,
			calls: decryptEach(func(wrapped []byte) [][]byte {
				return [][]byte{append(bytes.Clone(wrapped), 0), append(bytes.Clone(wrapped), wrapped...)}
			})},
		{name: "an empty wrapped key is refused", want: invalid,
			calls: decryptEach(func([]byte) [][]byte { return [][]byte{nil, {}} })},
		{name: "bytes that are no wrapped key are refused", want: invalid,
			calls: decryptEach(func([]byte) [][]byte {
				return [][]byte{{0}, make([]byte, 200), bytes.Repeat([]byte{1}, kmsprovider.MaxCiphertext), []byte(strings.Repeat("not a wrapped key ", 10))}
			})},
		{name: "re-encrypt of a changed wrapped key is refused", want: invalid,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				v := bytes.Clone(s.wrapped)
				v[len(v)-1] ^= 1
				_, err := f.Provider.ReEncrypt(ctx, v, f.KeyID, sampleContext(), f.OtherKeyID, nil)
				return []error{err}
			}},
	}
}

func inputRefusals() []refusal {
	encrypt := func(size int) func(context.Context, Fixture, sample) []error {
		return func(ctx context.Context, f Fixture, _ sample) []error {
			_, err := f.Provider.Encrypt(ctx, f.KeyID, make([]byte, size), nil)
			return []error{err}
		}
	}
	generateUnder := func(ec kmsprovider.Context) func(context.Context, Fixture, sample) []error {
		return func(ctx context.Context, f Fixture, s sample) []error {
			_, _, generated := f.Provider.GenerateDataKey(ctx, f.KeyID, ec)
			_, encrypted := f.Provider.Encrypt(ctx, f.KeyID, s.plaintext, ec)
			_, rewrapped := f.Provider.ReEncrypt(ctx, s.wrapped, f.KeyID, sampleContext(), f.OtherKeyID, ec)
			return []error{generated, encrypted, rewrapped}
		}
	}
	invalid := kmsprovider.ErrInvalidInput
	return []refusal{
		{name: "encrypting 4097 bytes is refused", want: invalid, calls: encrypt(kmsprovider.MaxPlaintext + 1)},
		{name: "encrypting 0 bytes is refused", want: invalid, calls: encrypt(0)},
		{name: "an empty key ID is refused", want: invalid,
			calls: func(ctx context.Context, f Fixture, s sample) []error { return allMethods(ctx, f, s, "") }},
		{name: "a context over 8192 bytes is refused", want: invalid,
			calls: generateUnder(kmsprovider.Context{"a": strings.Repeat("b", kmsprovider.MaxContext)})},
		{name: "a context that is not UTF-8 is refused", want: invalid, calls: generateUnder(kmsprovider.Context{"a": "\xff"})},
	}
}

func disabledRefusals() []refusal {
	return []refusal{
		{name: "a disabled key cannot be used", want: kmsprovider.ErrKeyDisabled, disabled: true,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				return keyUses(ctx, f, s, f.KeyID)
			}},
		{name: "re-encrypt to a disabled key is refused", want: kmsprovider.ErrKeyDisabled, disabled: true,
			calls: func(ctx context.Context, f Fixture, _ sample) []error {
				_, wrapped, err := f.Provider.GenerateDataKey(ctx, f.OtherKeyID, nil)
				if err != nil {
					return []error{fmt.Errorf("generate under the other key: %v", err)}
				}
				_, err = f.Provider.ReEncrypt(ctx, wrapped, f.OtherKeyID, nil, f.KeyID, nil)
				return []error{err}
			}},
	}
}

func cancelRefusals() []refusal {
	return []refusal{
		{name: "a cancelled context ends every call", want: context.Canceled,
			calls: func(ctx context.Context, f Fixture, s sample) []error {
				ctx, cancel := context.WithCancel(ctx)
				cancel()
				return allMethods(ctx, f, s, f.KeyID)
			}},
	}
}
