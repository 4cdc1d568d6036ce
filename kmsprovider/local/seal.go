package local

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"kmsfs/crypto"
)

// sealedKeySize is that of a key of 32 bytes sealed with XAES: nonce, key, tag.
const sealedKeySize = 24 + crypto.KeySize + 16

// Labels of derived keys and of what is sealed: one use each.
const (
	labelKEK       = "kmsfs v1 keystore key"       // AAD of the sealed key-encrypting key
	labelMaterials = "kmsfs v1 keystore materials" // its subkey that seals key material
	labelMaterial  = "kmsfs v1 keystore material"  // AAD of one key material
	labelImport    = "kmsfs v1 keystore import"    // AAD of an import token
	labelSecret    = "kmsfs v1 keystore secret"    // AAD of a principal's secret access key
	labelMAC       = "kmsfs v1 keystore mac"       // its subkey that authenticates the document
	labelIDs       = "kmsfs v1 keystore ids"       // its subkey that gives imported material its ID
	labelAudit     = "kmsfs v1 keystore audit"     // its subkey that authenticates the audit log
)

// sealer holds the subkeys of a keystore's key-encrypting key. The passphrase
// is needed to make one, and not afterwards.
type sealer struct {
	keystoreID string
	materials  *crypto.XAES // seals key material, import tokens and secret access keys
	mac        *crypto.Key  // authenticates the document
	ids        *crypto.Key  // of which the ID of imported material is an HMAC
	audit      *crypto.Key  // authenticates the audit log
}

// newSealer derives the subkeys of kek, which stays the caller's.
func newSealer(kek *crypto.Key, keystoreID string) (*sealer, error) {
	materials, err := subkey(kek, labelMaterials)
	if err != nil {
		return nil, err
	}
	defer materials.Wipe()
	mac, err := subkey(kek, labelMAC)
	if err != nil {
		return nil, err
	}
	ids, err := subkey(kek, labelIDs)
	if err != nil {
		return nil, err
	}
	audit, err := subkey(kek, labelAudit)
	if err != nil {
		return nil, err
	}
	return &sealer{keystoreID: keystoreID, materials: crypto.NewXAES(materials), mac: mac, ids: ids, audit: audit}, nil
}

func subkey(kek *crypto.Key, label string) (*crypto.Key, error) {
	raw, err := hkdf.Expand(sha256.New, kek.Bytes(), label, crypto.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive keystore key: %w", err)
	}
	defer clear(raw)
	return crypto.NewKey(raw)
}

// wipe ends the use of s. The expanded AES key cannot be wiped, only dropped.
func (s *sealer) wipe() {
	s.mac.Wipe()
	s.ids.Wipe()
	s.audit.Wipe()
	s.materials = nil
}

// sealMaterial returns key material of the key arn, ready to store.
func (s *sealer) sealMaterial(random io.Reader, arn string, id materialID, key *crypto.Key) ([]byte, error) {
	sealed, err := s.materials.Seal(nil, random, key.Bytes(), materialAAD(s.keystoreID, arn, id))
	if err != nil {
		return nil, fmt.Errorf("seal key material: %w", err)
	}
	return sealed, nil
}

// openMaterial is the reverse of sealMaterial; it returns the key material in
// the only form it is used in.
func (s *sealer) openMaterial(sealed []byte, arn string, id materialID) (*crypto.XAES, error) {
	raw, err := s.materials.Open(nil, sealed, materialAAD(s.keystoreID, arn, id))
	if err != nil {
		return nil, fmt.Errorf("open key material: %w", err)
	}
	defer clear(raw)
	key, err := crypto.NewKey(raw)
	if err != nil {
		return nil, fmt.Errorf("open key material: %w", err)
	}
	defer key.Wipe()
	return crypto.NewXAES(key), nil
}

func materialAAD(keystoreID, arn string, id materialID) []byte {
	return appendStrings(nil, labelMaterial, keystoreID, arn, string(id[:]))
}

// finish sets d's MAC and checksum and returns the bytes of the file.
func (s *sealer) finish(d *document) ([]byte, error) {
	covered, err := d.macBytes()
	if err != nil {
		return nil, err
	}
	d.MAC = s.sum(covered)
	if covered, err = d.checksumBytes(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(covered)
	d.Checksum = sum[:]
	return d.encode()
}

// verify checks d's MAC and that d is of this keystore.
func (s *sealer) verify(d *document) error {
	if d.ID != s.keystoreID {
		return fmt.Errorf("verify keystore: it is another keystore, %s: %w", d.ID, ErrDamaged)
	}
	covered, err := d.macBytes()
	if err != nil {
		return err
	}
	if !hmac.Equal(d.MAC, s.sum(covered)) {
		return fmt.Errorf("verify keystore: its MAC does not match: %w", ErrDamaged)
	}
	return nil
}

func (s *sealer) sum(b []byte) []byte {
	h := hmac.New(sha256.New, s.mac.Bytes())
	h.Write(b)
	return h.Sum(nil)
}

// verifyChecksum tells damage from a wrong passphrase. It needs no key and
// proves nothing against someone who changes it too; the MAC does.
func (d *document) verifyChecksum() error {
	covered, err := d.checksumBytes()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(covered)
	if !bytes.Equal(d.Checksum, sum[:]) {
		return fmt.Errorf("verify keystore: its checksum does not match: %w", ErrDamaged)
	}
	return nil
}

// sealKEK seals kek under the passphrase, with d's ID and KDF record.
func (d *document) sealKEK(random io.Reader, passphrase []byte, kek *crypto.Key) ([]byte, error) {
	aead, err := d.passphraseAEAD(passphrase)
	if err != nil {
		return nil, err
	}
	sealed, err := aead.Seal(nil, random, kek.Bytes(), d.kekAAD())
	if err != nil {
		return nil, fmt.Errorf("seal keystore key: %w", err)
	}
	return sealed, nil
}

// openKEK opens d's key-encrypting key, or returns ErrWrongPassphrase. The
// caller wipes the key. This takes as long as Argon2id does.
func (d *document) openKEK(passphrase []byte) (*crypto.Key, error) {
	aead, err := d.passphraseAEAD(passphrase)
	if err != nil {
		return nil, err
	}
	raw, err := aead.Open(nil, d.KEK, d.kekAAD())
	if err != nil {
		return nil, fmt.Errorf("open keystore key: %w", ErrWrongPassphrase)
	}
	defer clear(raw)
	return crypto.NewKey(raw)
}

func (d *document) passphraseAEAD(passphrase []byte) (*crypto.XAES, error) {
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("the passphrase is empty: %w", ErrWrongPassphrase)
	}
	key, err := d.KDF.params().derive(passphrase, d.KDF.Salt)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return crypto.NewXAES(key), nil
}

// kekAAD binds the sealed key to its keystore and to the KDF's parameters.
func (d *document) kekAAD() []byte {
	b := appendStrings(nil, labelKEK, d.ID, d.KDF.Name, string(d.KDF.Salt))
	b = binary.LittleEndian.AppendUint32(b, d.KDF.Time)
	b = binary.LittleEndian.AppendUint32(b, d.KDF.MemoryKiB)
	return append(b, d.KDF.Threads)
}

// appendStrings appends each string after its length, u32 little-endian.
func appendStrings(b []byte, parts ...string) []byte {
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}
