package formatreader

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"filippo.io/age"
	"golang.org/x/crypto/argon2"
)

// keystore is the file of the local KMS, as far as opening a wrapped key needs it.
type keystore struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	ID      string `json:"id"`
	Account string `json:"account"`
	KDF     struct {
		Name      string `json:"name"`
		Time      uint32 `json:"time"`
		MemoryKiB uint32 `json:"memory_kib"`
		Threads   uint8  `json:"threads"`
		Salt      []byte `json:"salt"`
	} `json:"kdf"`
	KEK  []byte `json:"sealed_kek"`
	Keys []struct {
		ID        string `json:"id"`
		Materials []struct {
			ID     string `json:"id"`
			Sealed []byte `json:"sealed"`
		} `json:"materials"`
	} `json:"keys"`
	MAC      []byte `json:"mac"`
	Checksum []byte `json:"checksum"`

	materials map[string][]byte // by key ARN, slash, material ID
}

var (
	macField      = regexp.MustCompile(`(?m)^  "mac": "[^"]*",$`)
	checksumField = regexp.MustCompile(`(?m)^  "checksum": "[^"]*"$`)
)

// openKeystore opens all key materials of a keystore.
func openKeystore(b []byte, passphrase string) (*keystore, error) {
	k := &keystore{materials: make(map[string][]byte)}
	if err := json.Unmarshal(b, k); err != nil {
		return nil, err
	}
	if k.Format != "kmsfs keystore" || k.Version != 1 || k.KDF.Name != "argon2id" {
		return nil, fmt.Errorf("%q version %d with %q", k.Format, k.Version, k.KDF.Name)
	}
	withoutSum := checksumField.ReplaceAll(b, []byte(`  "checksum": null`))
	withoutMAC := macField.ReplaceAll(withoutSum, []byte(`  "mac": null,`))
	if sum := sha256.Sum256(withoutSum); !bytes.Equal(sum[:], k.Checksum) {
		return nil, fmt.Errorf("checksum")
	}
	d := k.KDF
	key := argon2.IDKey([]byte(passphrase), d.Salt, d.Time, d.MemoryKiB, d.Threads, 32)
	aad := lengthened("kmsfs v1 keystore key", k.ID, d.Name, string(d.Salt))
	aad = little.AppendUint32(little.AppendUint32(aad, d.Time), d.MemoryKiB)
	kek, err := open(key, k.KEK, append(aad, d.Threads))
	if err != nil {
		return nil, fmt.Errorf("sealed_kek: %w", err)
	}
	if !bytes.Equal(mac(derive(kek, "keystore mac"), withoutMAC), k.MAC) {
		return nil, fmt.Errorf("mac")
	}
	materials := derive(kek, "keystore materials")
	for _, its := range k.Keys {
		arn := "arn:aws:kms:local:" + k.Account + ":key/" + its.ID
		for _, m := range its.Materials {
			raw, err := hex.DecodeString(m.ID)
			if err != nil {
				return nil, err
			}
			k.materials[arn+"/"+m.ID], err = open(materials, m.Sealed, lengthened("kmsfs v1 keystore material", k.ID, arn, string(raw)))
			if err != nil {
				return nil, fmt.Errorf("material %s: %w", m.ID, err)
			}
		}
	}
	return k, nil
}

// unwrap opens a wrapped key of the local KMS.
func (k *keystore) unwrap(arn string, wrapped []byte, context map[string]string) ([]byte, error) {
	if len(wrapped) != 121 || wrapped[0] != 1 {
		return nil, fmt.Errorf("wrapped key of %d bytes", len(wrapped))
	}
	uuid := strings.ReplaceAll(arn[strings.LastIndex(arn, "/")+1:], "-", "")
	if hex.EncodeToString(wrapped[1:17]) != uuid {
		return nil, fmt.Errorf("wrapped key of another key than %s", arn)
	}
	material := k.materials[arn+"/"+hex.EncodeToString(wrapped[17:49])]
	if material == nil {
		return nil, fmt.Errorf("no such material of %s", arn)
	}
	return open(material, wrapped[49:], append(bytes.Clone(wrapped[:49]), canonical(context)...))
}

// unwrapAge opens a wrapped key of an age recipient.
func unwrapAge(identity age.Identity, wrapped []byte, context map[string]string) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(wrapped), identity)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return nil, err
	}
	want := sha256.Sum256(append([]byte("kmsfs v1 age context"), canonical(context)...))
	if hash := b.Next(32); !bytes.Equal(hash, want[:]) {
		return nil, fmt.Errorf("another encryption context")
	}
	return b.Bytes(), nil
}
