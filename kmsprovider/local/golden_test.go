package local

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
)

// The files in testdata were written by the first version of the format. They
// are only ever added to: keystores of that time must open for good.
func TestAGoldenKeystoreOpensAndDecrypts(t *testing.T) {
	b, err := os.ReadFile("testdata/keystore-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile("testdata/wrapped-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := hex.DecodeString(strings.TrimSpace(string(blob)))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(scratch(t), "keystore.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	k := reopen(t, path)
	plaintext, err := k.Decrypt(t.Context(), DefaultAlias, wrapped, kmsprovider.Context{"kmsfs:volume": "golden", "a": ""})
	if err != nil || string(plaintext) != "golden" {
		t.Errorf("decrypt: %v", err)
	}
	keys, err := allKeys(t.Context(), k)
	if err != nil || len(keys) != 2 || keys[0].KeyManager != "SERVICE" || keys[1].Description != "second" || keys[1].Enabled {
		t.Errorf("keys: %+v, %v", keys, err)
	}
	if _, err := k.CreateKey(t.Context(), CreateKeyInput{}); err != nil {
		t.Errorf("create key: %v", err)
	}
}
