package kms

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// prober finds out what a KMS does.
type prober struct {
	caller
	admin, bob keys   // may do everything; may do nothing by himself
	bobARN     string // as a principal
}

// probes are the rows of the table, by their names there. Each returns what the
// KMS does, in the words of the table.
func (p *prober) probes() map[string]func(t *testing.T) string {
	shared := p.share()
	return map[string]func(t *testing.T) string{
		"Decrypt with another encryption context": func(t *testing.T) string {
			_, code := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": shared(t).blob, "EncryptionContext": input{"a": "c"}})
			return code
		},
		"Decrypt with `{\"ab\": \"\"}` for `{\"a\": \"b\"}`": func(t *testing.T) string {
			_, code := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": shared(t).blob, "EncryptionContext": input{"ab": ""}})
			return code
		},
		"Decrypt with another key's ID": func(t *testing.T) string {
			_, code := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": shared(t).blob, "EncryptionContext": ab, "KeyId": shared(t).other})
			return code
		},
		"Encrypt, GenerateDataKey, Decrypt with a disabled key; Decrypt with one that is being deleted": p.disabled,
		"DisableKey, EnableKey, ScheduleKeyDeletion by ARN":                                             p.byARN,
		"ReEncrypt from the right key, a wrong SourceKeyId, a disabled key":                             func(t *testing.T) string { return p.reEncrypt(t, shared(t)) },
		"RotateKeyOnDemand": p.rotate,
		"ImportKeyMaterial": p.importMaterial,
		"Decrypt without a grant, with one, with one for another context": p.grants,
		"Decrypt against a Deny in the key policy":                        p.deny,
		"DryRun": func(t *testing.T) string {
			_, code := p.call(t, p.admin, "Encrypt", input{"KeyId": shared(t).key, "Plaintext": plaintext, "DryRun": true})
			return code
		},
		"Encrypt 4096 and 4097 bytes": func(t *testing.T) string {
			var codes []string
			for _, size := range []int{4096, 4097} {
				_, code := p.call(t, p.admin, "Encrypt", input{"KeyId": shared(t).key, "Plaintext": bytes.Repeat([]byte{1}, size)})
				codes = append(codes, code)
			}
			return strings.Join(codes, ", ")
		},
	}
}

var (
	ab = input{"a": "b"}
	// plaintext must not turn up where it does not belong.
	plaintext = []byte("a plaintext that no log may hold")
)

// sharedKeys are for the probes that change nothing.
type sharedKeys struct {
	key, other string
	blob       []byte // plaintext under key and ab
}

func (p *prober) share() func(t *testing.T) sharedKeys {
	var once sync.Once
	var made sharedKeys
	return func(t *testing.T) sharedKeys {
		once.Do(func() {
			made.key, made.blob = p.keyAndBlob(t, ab)
			made.other = p.newKey(t)
		})
		return made
	}
}

// must is call for what has to work everywhere.
func (p *prober) must(t *testing.T, operation string, in input) output {
	t.Helper()
	out, code := p.call(t, p.admin, operation, in)
	if code != "ok" {
		t.Fatalf("%s: %s", operation, code)
	}
	return out
}

func (p *prober) newKey(t *testing.T) string {
	t.Helper()
	metadata, _ := p.must(t, "CreateKey", input{})["KeyMetadata"].(map[string]any)
	return output(metadata).text("Arn")
}

func (p *prober) keyAndBlob(t *testing.T, context input) (arn string, blob []byte) {
	t.Helper()
	arn = p.newKey(t)
	return arn, p.must(t, "Encrypt", input{"KeyId": arn, "Plaintext": plaintext, "EncryptionContext": context}).bytes(t, "CiphertextBlob")
}

// id is the ID in a key's ARN.
func id(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

func (p *prober) disabled(t *testing.T) string {
	key, blob := p.keyAndBlob(t, ab)
	p.must(t, "DisableKey", input{"KeyId": id(key)})
	_, encrypt := p.call(t, p.admin, "Encrypt", input{"KeyId": key, "Plaintext": plaintext})
	_, generate := p.call(t, p.admin, "GenerateDataKey", input{"KeyId": key, "KeySpec": "AES_256"})
	_, decrypt := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": blob, "EncryptionContext": ab})
	p.must(t, "ScheduleKeyDeletion", input{"KeyId": id(key)})
	_, deleted := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": blob, "EncryptionContext": ab})
	return strings.Join([]string{encrypt, generate, decrypt}, ", ") + "; " + deleted
}

func (p *prober) byARN(t *testing.T) string {
	key := p.newKey(t)
	var codes []string
	for _, operation := range []string{"DisableKey", "EnableKey", "ScheduleKeyDeletion"} {
		_, code := p.call(t, p.admin, operation, input{"KeyId": key})
		codes = append(codes, code)
	}
	return strings.Join(codes, ", ")
}

func (p *prober) reEncrypt(t *testing.T, s sharedKeys) string {
	try := func(blob []byte, source string) string {
		out, code := p.call(t, p.admin, "ReEncrypt", input{
			"CiphertextBlob": blob, "SourceEncryptionContext": ab, "SourceKeyId": source, "DestinationKeyId": s.other, "DestinationEncryptionContext": input{"c": "d"},
		})
		if code == "ok" && out.text("KeyId") != s.other {
			t.Errorf("moved to %s, want %s", out.text("KeyId"), s.other)
		}
		return code
	}
	disabled, blob := p.keyAndBlob(t, ab)
	p.must(t, "DisableKey", input{"KeyId": id(disabled)})
	return strings.Join([]string{try(s.blob, s.key), try(s.blob, s.other), try(blob, disabled)}, ", ")
}

func (p *prober) rotate(t *testing.T) string {
	key := p.newKey(t)
	generate := func() output {
		return p.must(t, "GenerateDataKey", input{"KeyId": key, "KeySpec": "AES_256", "EncryptionContext": ab})
	}
	before := generate()
	if _, code := p.call(t, p.admin, "RotateKeyOnDemand", input{"KeyId": key}); code != "ok" {
		return code
	}
	after := generate()
	opened := p.must(t, "Decrypt", input{"CiphertextBlob": before.bytes(t, "CiphertextBlob"), "EncryptionContext": ab})
	if opened.text("Plaintext") != before.text("Plaintext") {
		t.Error("the old ciphertext opens to something else")
	}
	const material = "KeyMaterialId"
	switch {
	case before.text(material) == "" && after.text(material) == "":
		return "accepted, no other material shows"
	case before.text(material) == after.text(material):
		return "accepted, the same material"
	case opened.text(material) != before.text(material):
		return "old ciphertexts under new material"
	}
	return "new material, old ciphertexts open"
}

func (p *prober) importMaterial(t *testing.T) string {
	metadata, _ := p.must(t, "CreateKey", input{"Origin": "EXTERNAL"})["KeyMetadata"].(map[string]any)
	key := output(metadata).text("Arn")
	parameters, code := p.call(t, p.admin, "GetParametersForImport", input{"KeyId": id(key), "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"})
	if code != "ok" {
		return code
	}
	parsed, err := x509.ParsePKIXPublicKey(parameters.bytes(t, "PublicKey"))
	if err != nil {
		t.Fatal(err)
	}
	material := make([]byte, 32)
	if _, err := rand.Read(material); err != nil {
		t.Fatal(err)
	}
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, parsed.(*rsa.PublicKey), material, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, code = p.call(t, p.admin, "ImportKeyMaterial", input{
		"KeyId": id(key), "ImportToken": parameters.bytes(t, "ImportToken"), "EncryptedKeyMaterial": wrapped, "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE",
	})
	if code != "ok" {
		return code
	}
	blob := p.must(t, "Encrypt", input{"KeyId": key, "Plaintext": plaintext}).bytes(t, "CiphertextBlob")
	if got := p.must(t, "Decrypt", input{"CiphertextBlob": blob}).bytes(t, "Plaintext"); !bytes.Equal(got, plaintext) {
		t.Errorf("decrypts to %q", got)
	}
	return "ok"
}

func (p *prober) grants(t *testing.T) string {
	purpose, other := input{"purpose": "books"}, input{"purpose": "other"}
	key, blob := p.keyAndBlob(t, purpose)
	otherBlob := p.must(t, "Encrypt", input{"KeyId": key, "Plaintext": plaintext, "EncryptionContext": other}).bytes(t, "CiphertextBlob")
	decrypt := func(blob []byte, context input) string {
		_, code := p.call(t, p.bob, "Decrypt", input{"CiphertextBlob": blob, "EncryptionContext": context})
		return code
	}
	codes := []string{decrypt(blob, purpose)}
	p.must(t, "CreateGrant", input{
		"KeyId": key, "GranteePrincipal": p.bobARN, "Operations": []string{"Decrypt"}, "Constraints": input{"EncryptionContextEquals": purpose},
	})
	return strings.Join(append(codes, decrypt(blob, purpose), decrypt(otherBlob, other)), ", ")
}

func (p *prober) deny(t *testing.T) string {
	key, blob := p.keyAndBlob(t, ab)
	account := strings.Split(key, ":")[4]
	p.must(t, "PutKeyPolicy", input{"KeyId": key, "PolicyName": "default", "Policy": fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::%s:root"}, "Action": "kms:*", "Resource": "*"},
		{"Effect": "Deny", "Principal": "*", "Action": "kms:Decrypt", "Resource": "*", "Condition": {"StringEquals": {"kms:EncryptionContext:a": "b"}}}]}`, account)})
	_, code := p.call(t, p.admin, "Decrypt", input{"CiphertextBlob": blob, "EncryptionContext": ab})
	return code
}
