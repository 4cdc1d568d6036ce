package kms

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/kmsprovider/local"
)

// Both commands write the same about the same message.
func TestMetadataIsThatOfTheOfficialCommand(t *testing.T) {
	official := emulator.Tool(t, "aws-encryption-cli")
	ours, err := kmsfsBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "--auth", "none")
	key := do[local.CreateKeyOutput](t, s.keystore, &local.CreateKeyInput{}).KeyMetadata.ARN
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plain"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) {
		c := exec.Command(program, append(args, "--wrapping-keys", "key="+key)...)
		c.Dir = dir
		c.Env = (&cli{endpoint: s.endpoint}).environment(keys{"none", "none"}, dir)
		// What is skipped has an exit code of its own here.
		if out, err := c.CombinedOutput(); err != nil && c.ProcessState.ExitCode() != 25 {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
	}
	record := func(program string, args ...string) map[string]any {
		file := filepath.Join(dir, "metadata")
		run(program, append(args, "--metadata-output", file, "--overwrite-metadata")...)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var line map[string]any
		if err := json.Unmarshal(b, &line); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		return line
	}
	run(ours, "--encrypt", "--input", "plain", "--output", "enc", "--encryption-context", "purpose=test", "name=ü<")
	for name, context := range map[string][]string{
		"it fits":       {"purpose=test", "name"},
		"another value": {"purpose=other"},
		"a key missing": {"color"},
	} {
		args := append([]string{"--decrypt", "--input", "enc", "--output", "dec", "--encryption-context"}, context...)
		got, want := record(ours, args...), record(official, args...)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%v\nofficial:\n%v", name, got, want)
		}
	}
	// Two encryptions of the same differ in their keys.
	args := []string{"--encrypt", "--input", "plain", "--output", "enc", "--frame-length", "512", "--algorithm", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"}
	got, want := record(ours, args...), record(official, args...)
	for _, m := range []map[string]any{got, want} {
		header := m["header"].(map[string]any)
		for _, drawn := range []string{"commitment_key", "message_id"} {
			if s, _ := header[drawn].(string); len(s) != 44 {
				t.Errorf("%s is %v", drawn, header[drawn])
			}
			delete(header, drawn)
		}
		delete(header["encrypted_data_keys"].([]any)[0].(map[string]any), "encrypted_data_key")
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("encryption:\n%v\nofficial:\n%v", got, want)
	}
}
