package kms

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"kmsfs/kmsprovider/local"
)

// The official encryption command works unchanged: it takes the region from the
// key's ARN.
func TestTheOfficialEncryptionCommand(t *testing.T) {
	bin := program(t, "aws-encryption-cli")
	s := newServer(t)
	who := s.principal("alice", everything)
	key := do[local.CreateKeyOutput](t, s.keystore, &local.CreateKeyInput{}).KeyMetadata.ARN
	dir := t.TempDir()
	text := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("plain"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		c := exec.Command(bin, append(args, "--metadata-output", path("metadata"), "--commitment-policy", "require-encrypt-require-decrypt")...)
		c.Env = (&cli{endpoint: s.endpoint}).environment(who, dir)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("aws-encryption-cli %v: %v\n%s", args, err, out)
		}
	}
	run("--encrypt", "--input", path("plain"), "--output", path("encrypted"), "--wrapping-keys", "key="+key, "--encryption-context", "purpose=test")
	run("--decrypt", "--input", path("encrypted"), "--output", path("decrypted"), "--wrapping-keys", "key="+key, "--encryption-context", "purpose=test")
	encrypted, err := os.ReadFile(path("encrypted"))
	if err != nil || bytes.Contains(encrypted, text[:16]) {
		t.Errorf("not encrypted: %v", err)
	}
	if got, err := os.ReadFile(path("decrypted")); err != nil || !bytes.Equal(got, text) {
		t.Errorf("decrypted to %d bytes, %v", len(got), err)
	}
}
