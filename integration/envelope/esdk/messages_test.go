package esdk

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"testing"

	"kmsfs/envelope"
	"kmsfs/integration/emulator"
	"kmsfs/kmsprovider"
)

// message is what is encrypted, and how.
type message struct {
	plaintext   []byte
	suite       envelope.Suite
	frameLength int // 0: what the writer does unasked
	context     kmsprovider.Context
	required    []string // keys of context
}

func (m message) suiteID() string { return fmt.Sprintf("0x%04x", uint16(m.suite)) }

// given is the part of the context that decryption needs to be told.
func (m message) given() kmsprovider.Context {
	out := kmsprovider.Context{}
	for _, k := range m.required {
		out[k] = m.context[k]
	}
	return out
}

func newMessage(t *testing.T, suite envelope.Suite, size, frameLength int) message {
	t.Helper()
	m := message{plaintext: make([]byte, size), suite: suite, frameLength: frameLength, context: kmsprovider.Context{"purpose": "test", "ä": "\U0001f511", "\uff5e": "="}}
	if _, err := rand.Read(m.plaintext); err != nil {
		t.Fatal(err)
	}
	return m
}

type party interface {
	encrypt(t *testing.T, m message) []byte
	decrypt(t *testing.T, m message, ciphertext []byte) ([]byte, error)
}

// exchange has writer write a message and reader read it; and reader refuse it
// when its last byte, or another context, is not as it was.
func exchange(t *testing.T, writer, reader party, m message) {
	t.Helper()
	ciphertext := writer.encrypt(t, m)
	got, err := reader.decrypt(t, m, ciphertext)
	if err != nil || !bytes.Equal(got, m.plaintext) {
		t.Errorf("%s, %d bytes in frames of %d: read %d bytes, %v", m.suiteID(), len(m.plaintext), m.frameLength, len(got), err)
	}
	damaged := bytes.Clone(ciphertext)
	damaged[len(damaged)-1] ^= 1
	if _, err := reader.decrypt(t, m, damaged); err == nil {
		t.Errorf("%s, %d bytes in frames of %d: read although it was damaged", m.suiteID(), len(m.plaintext), m.frameLength)
	}
	if len(m.required) > 0 {
		other := m
		other.context = maps.Clone(m.context)
		other.context[m.required[0]] += "x"
		if _, err := reader.decrypt(t, other, ciphertext); err == nil {
			t.Errorf("%s: read with another required context", m.suiteID())
		}
	}
}

// both runs a test in either direction. Not every suite is written by both.
func both(t *testing.T, sdk *official, kmsfs ours, messages func(suites []envelope.Suite) []message) {
	written := []envelope.Suite{envelope.SuiteCommitSigned, envelope.SuiteCommit}
	t.Run("kmsfs to SDK", func(t *testing.T) {
		for _, m := range messages(written) {
			exchange(t, kmsfs, sdk, m)
		}
	})
	t.Run("SDK to kmsfs", func(t *testing.T) {
		all := append(written, envelope.SuiteAES256Signed, envelope.SuiteAES192Signed, envelope.SuiteAES128Signed,
			envelope.SuiteAES256, envelope.SuiteAES192, envelope.SuiteAES128,
			envelope.SuiteAES256Identity, envelope.SuiteAES192Identity, envelope.SuiteAES128Identity)
		for _, m := range messages(all) {
			exchange(t, sdk, kmsfs, m)
		}
	})
}

// sizes around the edges of frames. At multiples of the frame length the SDK
// ends with a full frame, and kmsfs with an empty one.
func sizes(t *testing.T) func(suites []envelope.Suite) []message {
	return func(suites []envelope.Suite) (out []message) {
		for _, suite := range suites {
			for _, size := range []int{0, 1, 4095, 4096, 4097, 8192, 65536} {
				out = append(out, newMessage(t, suite, size, 0), newMessage(t, suite, size, 4096))
			}
			out = append(out, newMessage(t, suite, 100, 1), newMessage(t, suite, 64, 16))
		}
		return out
	}
}

func few(t *testing.T) func(suites []envelope.Suite) []message {
	return func(suites []envelope.Suite) (out []message) {
		for _, suite := range suites {
			out = append(out, newMessage(t, suite, 100, 0))
		}
		return out
	}
}

func TestMessagesUnderKMSKeys(t *testing.T) {
	s := emulator.Local(t)
	keys := []string{s.CreateKey(t), s.CreateKey(t), s.CreateKey(t)}
	sdk, kms := newOfficial(t), s.Admin(emulator.Region)
	t.Run("one", func(t *testing.T) {
		both(t, sdk.kms(t, kms, keys[0]), kmsKeyring(t, s, keys[0]), sizes(t))
	})
	t.Run("three, read with the last", func(t *testing.T) {
		m := newMessage(t, envelope.SuiteCommitSigned, 10000, 0)
		exchange(t, kmsKeyring(t, s, keys...), sdk.kms(t, kms, keys[2]), m)
		exchange(t, sdk.kms(t, kms, keys...), kmsKeyring(t, s, keys[2]), m)
	})
}

func TestMessagesUnderRawKeys(t *testing.T) {
	sdk := newOfficial(t)
	for _, size := range []int{16, 24, 32} {
		k := newAESKey(t, size)
		t.Run(k.name, func(t *testing.T) { both(t, sdk.aes(t, k), k.ours(t), few(t)) })
	}
	for algorithm := range paddings {
		k := newRSAKey(t, algorithm)
		t.Run(k.name, func(t *testing.T) { both(t, sdk.rsa(t, k), k.ours(t), few(t)) })
	}
}

func TestMessagesWithARequiredContext(t *testing.T) {
	k := newAESKey(t, 32)
	sdk := newOfficial(t)
	for name, required := range map[string][]string{"one": {"purpose"}, "all": {"purpose", "ä", "\uff5e"}} {
		t.Run(name, func(t *testing.T) {
			both(t, sdk.aes(t, k), k.ours(t), func(suites []envelope.Suite) []message {
				out := few(t)(suites)
				for i := range out {
					out[i].required = required
				}
				return out
			})
		})
	}
}
