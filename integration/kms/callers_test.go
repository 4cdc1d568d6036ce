package kms

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// input and output are those of an operation, by AWS's names of the fields.
// Bytes go in as []byte.
type (
	input  map[string]any
	output map[string]any
)

// caller calls a KMS. The code is that of an error, or "ok".
type caller interface {
	call(t *testing.T, who keys, operation string, in input) (out output, code string)
}

// cli calls through the aws command.
type cli struct {
	bin, endpoint string
	calls         atomic.Int64
}

func (c *cli) call(t *testing.T, who keys, operation string, in input) (output, string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"kms", kebab(operation), "--output", "json"}
	for name, value := range in {
		args = append(args, flag(t, dir, name, value)...)
	}
	cmd := exec.Command(c.bin, args...)
	cmd.Env = c.environment(who, dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	c.calls.Add(1)
	stdout, err := cmd.Output()
	if err != nil {
		found := errorCode.FindStringSubmatch(stderr.String())
		if found == nil {
			t.Fatalf("aws %v: %v\n%s", args, err, &stderr)
		}
		return nil, found[1]
	}
	var out output
	if len(bytes.TrimSpace(stdout)) > 0 {
		if err := json.Unmarshal(stdout, &out); err != nil {
			t.Fatalf("aws %v printed %q: %v", args, stdout, err)
		}
	}
	return out, "ok"
}

// environment is what AWS's programs get: nothing of the user's own.
func (c *cli) environment(who keys, home string) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "AWS_") })
	return append(env, "HOME="+home, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_KMS="+c.endpoint, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID="+who.id, "AWS_SECRET_ACCESS_KEY="+who.secret)
}

var (
	errorCode = regexp.MustCompile(`An error occurred \((\w+)\) when calling`)
	capital   = regexp.MustCompile(`([a-z0-9])([A-Z])`)
)

// kebab turns KeyId into key-id.
func kebab(s string) string {
	return strings.ToLower(capital.ReplaceAllString(s, "$1-$2"))
}

// flag is a field of the input as the aws command takes it.
func flag(t *testing.T, dir, name string, value any) []string {
	t.Helper()
	dashed := "--" + kebab(name)
	switch v := value.(type) {
	case bool:
		return []string{dashed}
	case string:
		return []string{dashed, v}
	case []byte:
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, v, 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{dashed, "fileb://" + file}
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return []string{dashed, string(text)}
}

// wire calls over HTTP, with a signature that is none: the emulator asks for no
// better.
type wire struct{ endpoint string }

func (c wire) call(t *testing.T, who keys, operation string, in input) (output, string) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.endpoint, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+who.id+"/20260101/us-east-1/kms/aws4_request, SignedHeaders=host, Signature=0")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode >= 500 {
		return nil, fmt.Sprintf("HTTP %d", response.StatusCode)
	}
	var out output
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, &out); err != nil {
			t.Fatalf("%s answered %q: %v", operation, answer, err)
		}
	}
	if response.StatusCode != http.StatusOK {
		kind, _ := out["__type"].(string)
		return nil, kind
	}
	return out, "ok"
}

// text is a member of an output that is a string; empty if it is not there.
func (o output) text(name string) string {
	s, _ := o[name].(string)
	return s
}

// bytes is one that is base64.
func (o output) bytes(t *testing.T, name string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(o.text(name))
	if err != nil || len(b) == 0 {
		t.Fatalf("%s is %v: %v", name, o[name], err)
	}
	return b
}
