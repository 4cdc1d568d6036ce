package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

// policyBlocks are the policies in docs/AWS.md.
var policyBlocks = regexp.MustCompile("(?ms)^```json policy\n(.*?)^```$")

func TestTheDocumentedPolicyIsEnough(t *testing.T) {
	doc, err := os.ReadFile("../docs/AWS.md")
	if err != nil {
		t.Fatal(err)
	}
	found := policyBlocks.FindStringSubmatch(string(doc))
	if found == nil {
		t.Fatal("docs/AWS.md has no policy")
	}
	server := emulator.Local(t)
	key, other := server.CreateKey(t), server.CreateKey(t)
	server.Restrict(t, strings.ReplaceAll(found[1], "KEY_ARN", key))

	d := newDaemonIn(t, server.Environment(server.URL), "--key", key)
	d.start()
	path := filepath.Join(d.Dir, "file")
	if err := os.WriteFile(path, []byte(text(1)), 0o644); err != nil {
		t.Fatal(err)
	}
	d.stop()
	d.start()
	if b, err := os.ReadFile(path); err != nil || string(b) != text(1) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	d.stop()

	// And no more than that.
	caller := server.Caller(t)
	ofVolume := kmsprovider.Context{"kmsfs:volume": "v", "kmsfs:file": "f"}
	for what, c := range map[string]struct {
		key     string
		context kmsprovider.Context
		allowed bool
	}{
		"a volume's data key":    {key, ofVolume, true},
		"one for something else": {key, kmsprovider.Context{"purpose": "other"}, false},
		"one without a context":  {key, nil, false},
		"one under another key":  {other, ofVolume, false},
	} {
		in := &local.GenerateDataKeyInput{KeyID: c.key, KeySpec: "AES_256", EncryptionContext: c.context}
		_, err := server.Keystore.Do(t.Context(), caller, in)
		if allowed := err == nil; allowed != c.allowed || !allowed && !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, in := range []local.Input{
		&local.DisableKeyInput{KeyID: key}, &local.ScheduleKeyDeletionInput{KeyID: key}, &local.GetKeyPolicyInput{KeyID: key},
	} {
		if _, err := server.Keystore.Do(t.Context(), caller, in); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s: %v", local.OperationOf(in), err)
		}
	}
}
