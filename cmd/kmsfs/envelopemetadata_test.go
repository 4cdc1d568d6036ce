package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// The fields and their forms are those of aws-encryption-cli 4.3.0.
func TestMetadataIsWhatTheOfficialCommandWrites(t *testing.T) {
	version2 := envelope.Header{
		Version: 2, Suite: envelope.SuiteCommit, MessageID: []byte("ID"), FrameLength: 4096, Commitment: []byte("commits"),
		Context: kmsprovider.Context{"b": "ü", "a": "<"}, IV: make([]byte, 12), Tag: []byte("tag"),
		Keys: []envelope.EncryptedDataKey{
			{Provider: "me", Info: []byte("name"), Ciphertext: []byte("2")},
			{Provider: "aws-kms", Info: []byte("arn:b"), Ciphertext: []byte("1")},
			{Provider: "aws-kms", Info: []byte("arn:a"), Ciphertext: []byte("0")},
		},
	}
	version1 := envelope.Header{
		Version: 1, Suite: envelope.SuiteAES128, MessageID: []byte("ID"), IV: make([]byte, 12), Tag: []byte("tag"),
		Keys: []envelope.EncryptedDataKey{{Provider: "me", Info: []byte("name"), Ciphertext: []byte("2")}},
	}
	const keys = `[{"encrypted_data_key": "MA==", "key_provider": {"key_info": "YXJuOmE=", "provider_id": "YXdzLWttcw=="}},
		{"encrypted_data_key": "MQ==", "key_provider": {"key_info": "YXJuOmI=", "provider_id": "YXdzLWttcw=="}},
		{"encrypted_data_key": "Mg==", "key_provider": {"key_info": "bmFtZQ==", "provider_id": "bWU="}}]`
	const header2 = `"header": {"algorithm": "AES_256_GCM_HKDF_SHA512_COMMIT_KEY", "commitment_key": "Y29tbWl0cw==", "content_type": 2, "encrypted_data_keys": ` + keys +
		`, "encryption_context": {"a": "<", "b": "\u00fc"}, "frame_length": 4096, "header_iv_length": null, "message_id": "SUQ=", "type": null, "version": "2.0"}`
	const auth = `"header_auth": {"iv": "AAAAAAAAAAAAAAAA", "tag": "dGFn"}`
	for name, c := range map[string]struct {
		mode    string
		j       job
		h       envelope.Header
		skipped *contextMismatch
		want    string
	}{
		"encryption": {"encrypt", job{in: "/in", out: "/out"}, version2, nil,
			`{` + header2 + `, "input": "/in", "mode": "encrypt", "output": "/out"}`},
		"decryption of streams": {"decrypt-unsigned", job{in: "-", out: "-"}, version2, nil,
			`{` + header2 + `, ` + auth + `, "input": "<stdin>", "mode": "decrypt-unsigned", "output": "<stdout>"}`},
		"another context": {"decrypt", job{in: "/in", out: "/out"}, version2, &contextMismatch{keys: []string{}, pairs: [][2]string{{"purpose", "other"}}},
			`{` + header2 + `, ` + auth + `, "input": "/in", "missing_encryption_context_keys": [], "missing_encryption_context_pairs": [["purpose", "other"]],
			"mode": "decrypt", "output": "/out", "reason": "Missing encryption context key or value", "skipped": true}`},
		"version 1, not framed": {"decrypt", job{in: "/in", out: "/out"}, version1, nil,
			`{"header": {"algorithm": "AES_128_GCM_IV12_TAG16_HKDF_SHA256", "commitment_key": null, "content_type": 1,
			"encrypted_data_keys": [{"encrypted_data_key": "Mg==", "key_provider": {"key_info": "bmFtZQ==", "provider_id": "bWU="}}],
			"encryption_context": {}, "frame_length": 0, "header_iv_length": 12, "message_id": "SUQ=", "type": 128, "version": "1.0"}, ` + auth + `,
			"input": "/in", "mode": "decrypt", "output": "/out"}`},
	} {
		var b bytes.Buffer
		f := &metadataFile{w: &b}
		if err := f.write(newMetadata(c.mode, c.j, &c.h, c.skipped)); err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatal(name, err)
		}
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s\nwant %s (%v)", name, b.String(), c.want, err)
		}
		if strings.Count(b.String(), "\n") != 1 {
			t.Errorf("%s: not one line: %q", name, b.String())
		}
	}
}

func TestHintsQuoteWhatAMessageSays(t *testing.T) {
	h := &envelope.Header{Context: kmsprovider.Context{"a": "\x1b[2J", "aws-crypto-public-key": "x"}}
	aes := append([]byte("name"), 0, 0, 0, 128, 0, 0, 0, 12)
	h.Keys = []envelope.EncryptedDataKey{{Provider: "me\n", Info: aes}}
	err := hintDecryption(envelope.ErrContext, h, envelope.DecryptOptions{})
	if got := hintOf(err); got != `the message shows: a="\x1b[2J"` {
		t.Errorf("%q", got)
	}
	err = hintDecryption(envelope.ErrNoKey, h, envelope.DecryptOptions{Context: kmsprovider.Context{"k": "v"}})
	if got, want := hintOf(err), `it is wrapped under namespace="me\n",name=name; whether it is bound to k=v it does not show`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for range 100 {
		h.Keys = append(h.Keys, envelope.EncryptedDataKey{Provider: "aws-kms", Info: []byte("arn:" + base64.StdEncoding.EncodeToString(aes))})
	}
	if got := hintOf(hintDecryption(envelope.ErrNoKey, h, envelope.DecryptOptions{})); !strings.HasSuffix(got, ", and 91 more") {
		t.Errorf("%q", got)
	}
}
