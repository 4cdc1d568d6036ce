package envelope

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"kmsfs/integration/emulator"
)

// record runs a command and returns the JSON line that it writes.
func (s *site) record(program string, args ...string) map[string]any {
	s.t.Helper()
	file := s.path("metadata")
	c := s.command(program, append(args, "--wrapping-keys", "key="+s.keys[0], "--metadata-output", file, "--overwrite-metadata")...)
	// What is skipped has an exit code of its own in kmsfs.
	if out, err := c.CombinedOutput(); err != nil && c.ProcessState.ExitCode() != 25 {
		s.t.Fatalf("%s %q: %v\n%s", filepath.Base(program), args, err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal(b, &line); err != nil {
		s.t.Fatalf("%q: %v", b, err)
	}
	return line
}

// Both commands write the same about the same message.
func TestMetadataIsThatOfTheOfficialCommand(t *testing.T) {
	s := newSite(t, emulator.Local)
	writeRandom(t, s.path("plain"), 1000)
	s.run(s.ours, "encrypt", "--key", s.keys[0], "--key", s.keys[1], "--key", s.keys[2], "-c", "purpose=test", "name=ü<", "--input", "plain", "--output", "enc")
	const policy = "--commitment-policy=forbid-encrypt-allow-decrypt"
	s.official("--encrypt", policy, "--algorithm", "AES_128_GCM_IV12_TAG16", "--frame-length", "0", "--input", "plain", "--output", "old", "--wrapping-keys", "key="+s.keys[0])
	for name, args := range map[string][]string{
		"it fits":                      {"enc", "--encryption-context", "purpose=test", "name"},
		"another value":                {"enc", "--encryption-context", "purpose=other"},
		"a key missing":                {"enc", "--encryption-context", "color"},
		"of version 1, without frames": {"old", policy},
	} {
		args := append([]string{"--decrypt", "--output", "dec", "--input"}, args...)
		if got, want := s.record(s.ours, args...), s.record(s.aws(), args...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%v\nofficial:\n%v", name, got, want)
		}
	}
	// Two encryptions of the same differ in their keys.
	args := []string{"--encrypt", "--input", "plain", "--output", "enc", "--frame-length", "512", "--algorithm", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY"}
	got, want := s.record(s.ours, args...), s.record(s.aws(), args...)
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
