package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"kmsfs/kmsprovider/local"
)

// field VARIABLE PATH: sets the variable to that field of the JSON that was
// printed last; PATH is like Keys.0.KeyId.
func scriptField(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], printedField(ts, args[1]))
}

// blob FILE PATH: writes what the field has in base64 to the file.
func scriptBlob(ts *testscript.TestScript, _ bool, args []string) {
	b, err := base64.StdEncoding.DecodeString(printedField(ts, args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// wrapkey PUBLIC IN OUT: encrypts a file as key material is before its import.
func scriptWrapKey(ts *testscript.TestScript, _ bool, args []string) {
	public, err := x509.ParsePKIXPublicKey([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), []byte(ts.ReadFile(args[1])), nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), wrapped, 0o600))
}

// rsakey PRIVATE PUBLIC: writes a new RSA key as PEM.
func scriptRSAKey(ts *testscript.TestScript, _ bool, args []string) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	ts.Check(err)
	for i, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: private}, {Type: "PUBLIC KEY", Bytes: public}} {
		ts.Check(os.WriteFile(ts.MkAbs(args[i]), pem.EncodeToMemory(block), 0o600))
	}
}

func printedField(ts *testscript.TestScript, path string) string {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for _, part := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("%s: %d entries", path, len(x))
			}
			v = x[i]
		}
	}
	if v == nil {
		ts.Fatalf("no field %s", path)
	}
	return fmt.Sprint(v)
}

func TestEveryOperationIsAVerbAndEveryMemberHasHelp(t *testing.T) {
	verbs := make(map[string]bool)
	for _, v := range kmsVerbs() {
		verbs[v.operation] = true
		in, ok := local.NewInput(v.operation)
		if !ok {
			t.Errorf("%s is no operation", v.operation)
			continue
		}
		c := (&app{}).kmsVerbCommand(v)
		if c.Short == "" || !strings.HasPrefix(c.Use, v.name()) {
			t.Errorf("%s: %q, %q", v.operation, c.Use, c.Short)
		}
		for _, m := range addKMSFlags(c.InheritedFlags(), in, v.positional).values {
			if kmsUsages[m.member] == "" {
				t.Errorf("%s has no help", m.member)
			}
		}
	}
	for _, operation := range local.Operations() {
		// The default key is made by init, not by a verb.
		if !verbs[operation] && operation != "EnsureDefaultKey" {
			t.Errorf("%s has no verb", operation)
		}
	}
}

func TestDatesArePrintedAsTheAWSCLIPrintsThem(t *testing.T) {
	in := "{\n    \"CreationDate\": 1767225600.25,\n    \"ValidTo\": 1767225600\n    \"Description\": \"\\n\\\"CreationDate\\\": 5\",\n    \"Size\": 5\n}\n"
	want := "{\n    \"CreationDate\": \"2026-01-01T00:00:00.250000+00:00\",\n    \"ValidTo\": \"2026-01-01T00:00:00.000000+00:00\"\n    \"Description\": \"\\n\\\"CreationDate\\\": 5\",\n    \"Size\": 5\n}\n"
	if got := string(showDates([]byte(in))); got != want {
		t.Errorf("%s", got)
	}
}
