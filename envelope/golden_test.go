package envelope

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// goldenMessage is an entry of testdata/golden.json: a message that the official SDK wrote.
type goldenMessage struct {
	File        string              `json:"file"`
	Version     int                 `json:"version"`
	Suite       string              `json:"suite"`
	FrameLength int                 `json:"frameLength"` // 0: not framed
	Size        int                 `json:"size"`
	SHA256      string              `json:"sha256"` // of the plaintext
	RawKey      string              `json:"rawKey"` // for ParseRawKey; file= below testdata
	Policy      string              `json:"policy"`
	Context     kmsprovider.Context `json:"context"` // given on decryption
	Stored      kmsprovider.Context `json:"stored"`  // without the key of the signature
	Keys        int                 `json:"keys"`
}

// TestGoldenMessagesDecrypt opens every message of the official SDK that is in testdata. They are never made anew, only
// added to.
func TestGoldenMessagesDecrypt(t *testing.T) {
	b, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []goldenMessage
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	type shape struct {
		suite  Suite
		framed bool
	}
	seen := make(map[shape]bool)
	for _, g := range golden {
		t.Run(g.File, func(t *testing.T) {
			suite, err := ParseSuite(g.Suite)
			if err != nil {
				t.Fatal(err)
			}
			policy, err := ParseCommitmentPolicy(g.Policy)
			if err != nil {
				t.Fatal(err)
			}
			keyring, err := ParseRawKey(privateKeyFile(t, g.RawKey))
			if err != nil {
				t.Fatal(err)
			}
			message, err := os.ReadFile(filepath.Join("testdata", g.File))
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			h, err := Decrypt(context.Background(), &got, bytes.NewReader(message), DecryptOptions{Keyring: keyring, Policy: policy, Context: g.Context})
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(got.Bytes())
			if got.Len() != g.Size || hex.EncodeToString(sum[:]) != g.SHA256 {
				t.Errorf("%d bytes with sum %x, want %d with %s", got.Len(), sum, g.Size, g.SHA256)
			}
			if h.Version != g.Version || h.Suite != suite || h.FrameLength != g.FrameLength || len(h.Keys) != g.Keys {
				t.Errorf("version %d, %s, frames of %d, %d keys; want %+v", h.Version, h.Suite, h.FrameLength, len(h.Keys), g)
			}
			stored := h.Context
			delete(stored, publicKeyContext)
			if len(stored) != len(g.Stored) {
				t.Errorf("stored context %v, want %v", stored, g.Stored)
			}
			for k, v := range g.Stored {
				if stored[k] != v {
					t.Errorf("stored context %v, want %v", stored, g.Stored)
				}
			}
			seen[shape{suite, g.FrameLength > 0}] = true

			// The header is written as the SDK wrote it.
			if parsed, err := ParseHeader(bytes.NewReader(message), 0); err != nil || !bytes.Equal(marshal(t, parsed), message[:len(parsed.stored())]) {
				t.Errorf("header is not written as it was read: %v", err)
			}
		})
	}
	for _, s := range allSuites {
		for _, framed := range []bool{true, false} {
			if !seen[shape{s, framed}] {
				t.Errorf("no golden message of %s, framed %t, was opened", s, framed)
			}
		}
	}
}

// privateKeyFile copies the key file of a spec to where nobody else reads it, which ParseRawKey asks for.
func privateKeyFile(t *testing.T, spec string) string {
	t.Helper()
	before, name, ok := strings.Cut(spec, "file=")
	if !ok {
		t.Fatalf("no file in %q", spec)
	}
	key, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(private, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return before + "file=" + private
}
