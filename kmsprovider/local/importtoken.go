package local

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"time"

	"kmsfs/crypto"
)

// An import token is all that ImportKeyMaterial needs, sealed, so that nothing
// has to be stored for an import that may never come:
//
//	0   8   Unix seconds at which it expires, little-endian
//	8   n   the wrapping key, PKCS #1
//
// XAES-256-GCM under the materials key; AAD = label ‖ keystore ID ‖ ARN of the
// key. With the largest wrapping key it has some 2400 bytes.

// wrappingBits are the wrapping keys to choose from.
var wrappingBits = map[string]int{"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}

const wrappingAlgorithm = "RSAES_OAEP_SHA_256"

// GetParametersForImportInput makes a wrapping key and a token for one import.
type GetParametersForImportInput struct {
	KeyID             string `json:"KeyId"`
	WrappingAlgorithm string `json:"WrappingAlgorithm"` // RSAES_OAEP_SHA_256
	WrappingKeySpec   string `json:"WrappingKeySpec"`   // RSA_2048, RSA_3072, RSA_4096
}

// GetParametersForImportOutput is GetParametersForImport's.
type GetParametersForImportOutput struct {
	KeyID             string    `json:"KeyId"` // ARN
	ImportToken       []byte    `json:"ImportToken"`
	PublicKey         []byte    `json:"PublicKey"` // SubjectPublicKeyInfo, DER
	ParametersValidTo Timestamp `json:"ParametersValidTo"`
}

func (in *GetParametersForImportInput) operation() operation {
	op := importing("GetParametersForImport", in.KeyID, notDying)
	op.changes = false
	return op
}

func (in *GetParametersForImportInput) check() error {
	switch in.WrappingAlgorithm {
	case "RSAES_PKCS1_V1_5", "RSAES_OAEP_SHA_1", "RSA_AES_KEY_WRAP_SHA_1", "RSA_AES_KEY_WRAP_SHA_256", "SM2PKE":
		return refuse(codeUnsupported, "WrappingAlgorithm %s is not supported, only %s is.", in.WrappingAlgorithm, wrappingAlgorithm)
	}
	return firstError(
		checkEnum("wrappingAlgorithm", in.WrappingAlgorithm, wrappingAlgorithm),
		checkEnum("wrappingKeySpec", in.WrappingKeySpec, "RSA_2048", "RSA_3072", "RSA_4096"),
	)
}

func (in *GetParametersForImportInput) conditions() map[string][]string {
	return map[string][]string{"kms:WrappingAlgorithm": {in.WrappingAlgorithm}, "kms:WrappingKeySpec": {in.WrappingKeySpec}}
}

// perform leaves the making of the RSA key, up to seconds, for when no lock is
// held.
func (in *GetParametersForImportInput) perform(c *call) (any, error) {
	out := &GetParametersForImportOutput{KeyID: c.key.arn, ParametersValidTo: Timestamp{c.now.Add(importToken)}}
	c.after = func() error {
		wrapping, err := rsa.GenerateKey(rand.Reader, wrappingBits[in.WrappingKeySpec])
		if err != nil {
			return fmt.Errorf("generate wrapping key: %w", err)
		}
		if out.PublicKey, err = x509.MarshalPKIXPublicKey(&wrapping.PublicKey); err != nil {
			return fmt.Errorf("encode wrapping key: %w", err)
		}
		c.k.mu.RLock()
		defer c.k.mu.RUnlock()
		if c.k.closed {
			return errClosed
		}
		out.ImportToken, err = c.k.sealer.sealImportToken(c.k, out.KeyID, wrapping, out.ParametersValidTo.Time)
		return err
	}
	return out, nil
}

func (s *sealer) sealImportToken(k *Keystore, arn string, wrapping *rsa.PrivateKey, expires time.Time) ([]byte, error) {
	plain := binary.LittleEndian.AppendUint64(nil, uint64(expires.Unix()))
	plain = append(plain, x509.MarshalPKCS1PrivateKey(wrapping)...)
	defer clear(plain)
	token, err := s.materials.Seal(nil, k.random, plain, s.importAAD(arn))
	if err != nil {
		return nil, fmt.Errorf("seal import token: %w", err)
	}
	return token, nil
}

// openImportToken returns the wrapping key of a token for the key arn.
func (s *sealer) openImportToken(token []byte, arn string, now time.Time) (*rsa.PrivateKey, error) {
	plain, err := s.materials.Open(nil, token, s.importAAD(arn))
	if err != nil || len(plain) < 8 {
		return nil, refuse("InvalidImportTokenException", "The import token is not valid for %s.", arn).of(errBadToken)
	}
	defer clear(plain)
	if now.Unix() >= int64(binary.LittleEndian.Uint64(plain)) {
		return nil, refuse("ExpiredImportTokenException", "The import token has expired.").of(errBadToken)
	}
	wrapping, err := x509.ParsePKCS1PrivateKey(plain[8:])
	if err != nil {
		return nil, fmt.Errorf("parse wrapping key: %w", err)
	}
	return wrapping, nil
}

func (s *sealer) importAAD(arn string) []byte {
	return appendStrings(nil, labelImport, s.keystoreID, arn)
}

// importedID is the ID of imported material: of the same material for the same
// key always the same, and without the keystore's own key nothing is learnt
// from it.
func (s *sealer) importedID(arn string, key *crypto.Key) materialID {
	h := hmac.New(sha256.New, s.ids.Bytes())
	h.Write(appendStrings(nil, s.keystoreID, arn, string(key.Bytes())))
	return materialID(h.Sum(nil))
}
