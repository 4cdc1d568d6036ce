package local

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// The material of a key of origin EXTERNAL is the user's own: 32 bytes, which
// come encrypted under an RSA key that GetParametersForImport made. A key takes
// one material in its life, and after that was deleted or has expired only the
// same again.

const (
	importToken      = 24 * time.Hour       // for which an import token is good
	maxValid         = 365 * 24 * time.Hour // that an expiry may be away
	materialExpires  = "KEY_MATERIAL_EXPIRES"
	materialForever  = "KEY_MATERIAL_DOES_NOT_EXPIRE"
	newMaterial      = "NEW_KEY_MATERIAL"
	existingMaterial = "EXISTING_KEY_MATERIAL"
	stateImported    = "IMPORTED"
	statePending     = "PENDING_IMPORT"
)

// importing describes an operation on imported material.
func importing(name, keyID string, in states) operation {
	op := managing(name, keyID, in)
	op.origin = originExternal
	return op
}

// ImportKeyMaterialInput gives a key its material.
type ImportKeyMaterialInput struct {
	KeyID                  string     `json:"KeyId"`
	ImportToken            []byte     `json:"ImportToken"`
	EncryptedKeyMaterial   []byte     `json:"EncryptedKeyMaterial"`      // 32 bytes, under RSAES_OAEP_SHA_256 and the PublicKey that came with the token
	ValidTo                *Timestamp `json:"ValidTo,omitempty"`         // within 365 days
	ExpirationModel        string     `json:"ExpirationModel,omitempty"` // KEY_MATERIAL_EXPIRES, which is the default, or KEY_MATERIAL_DOES_NOT_EXPIRE
	ImportType             string     `json:"ImportType,omitempty"`      // NEW_KEY_MATERIAL the first time, EXISTING_KEY_MATERIAL after that
	KeyMaterialDescription string     `json:"KeyMaterialDescription,omitempty"`
	KeyMaterialID          string     `json:"KeyMaterialId,omitempty"`
}

// ImportKeyMaterialOutput is ImportKeyMaterial's.
type ImportKeyMaterialOutput struct {
	KeyID         string `json:"KeyId"`         // ARN
	KeyMaterialID string `json:"KeyMaterialId"` // 64 hex digits
}

func (in *ImportKeyMaterialInput) operation() operation {
	return importing("ImportKeyMaterial", in.KeyID, notDying)
}

func (in *ImportKeyMaterialInput) expires() bool { return in.ExpirationModel != materialForever }

func (in *ImportKeyMaterialInput) check() error {
	if err := firstError(
		checkEnum("expirationModel", in.ExpirationModel, "", materialExpires, materialForever),
		checkEnum("importType", in.ImportType, "", newMaterial, existingMaterial),
	); err != nil {
		return err
	}
	switch {
	case in.expires() && in.ValidTo == nil:
		return refuse(codeValidation, "A validTo date must be set if the ExpirationModel is KEY_MATERIAL_EXPIRES")
	case !in.expires() && in.ValidTo != nil:
		return refuse(codeValidation, "A validTo date must not be set if the ExpirationModel is KEY_MATERIAL_DOES_NOT_EXPIRE")
	case in.KeyMaterialDescription != "":
		return refuse(codeUnsupported, "KeyMaterialDescription is not supported.")
	case len(in.ImportToken) == 0 || len(in.EncryptedKeyMaterial) == 0:
		return invalid("importToken, encryptedKeyMaterial", "Member must have length greater than or equal to 1")
	}
	return nil
}

func (in *ImportKeyMaterialInput) conditions() map[string][]string {
	c := map[string][]string{"kms:ExpirationModel": {materialExpires}}
	if !in.expires() {
		c["kms:ExpirationModel"] = []string{materialForever}
	}
	if in.ValidTo != nil {
		c["kms:ValidTo"] = []string{in.ValidTo.UTC().Format(time.RFC3339)}
	}
	return c
}

func (in *ImportKeyMaterialInput) perform(c *call) (any, error) {
	var expires time.Time
	if in.ValidTo != nil {
		if expires = in.ValidTo.UTC(); !expires.After(c.now) || expires.Sub(c.now) > maxValid {
			return nil, refuse(codeValidation, "validTo must be in the future, and within 365 days")
		}
	}
	wrapping, err := c.k.sealer.openImportToken(in.ImportToken, c.key.arn, c.now)
	if err != nil {
		return nil, err
	}
	raw, err := rsa.DecryptOAEP(sha256.New(), nil, wrapping, in.EncryptedKeyMaterial, nil)
	if err != nil {
		return nil, refuse(codeInvalidCiphertext, "")
	}
	defer clear(raw)
	key, err := crypto.NewKey(raw)
	if err != nil {
		return nil, refuse("IncorrectKeyMaterialException", "The key material has %d bytes, a symmetric key has %d.", len(raw), crypto.KeySize).of(kmsprovider.ErrInvalidInput)
	}
	defer key.Wipe()
	id, err := in.place(c, key)
	if err != nil {
		return nil, err
	}
	r := c.keyRecord()
	m := materialRecord{ID: hex.EncodeToString(id[:]), Created: c.now, Expires: expires}
	if m.Sealed, err = c.k.sealer.sealMaterial(c.k.random, c.key.arn, id, key); err != nil {
		return nil, err
	}
	r.Materials, r.Current = []materialRecord{m}, m.ID
	if r.State == kmsprovider.StatePendingImport {
		r.State = kmsprovider.StateEnabled
	}
	return &ImportKeyMaterialOutput{KeyID: c.key.arn, KeyMaterialID: m.ID}, nil
}

// place returns the ID of the material, and refuses all but the first one that
// the key had.
func (in *ImportKeyMaterialInput) place(c *call, key *crypto.Key) (materialID, error) {
	id := c.k.sealer.importedID(c.key.arn, key)
	text := hex.EncodeToString(id[:])
	had := c.key.record.Materials
	wrong := func(message string) (materialID, error) {
		return id, refuse("IncorrectKeyMaterialException", "%s", message).of(kmsprovider.ErrInvalidInput)
	}
	switch {
	case len(had) > 0 && in.ImportType == newMaterial:
		return id, refuse(codeUnsupported, "%s has key material already, and takes only the same again.", c.key.arn)
	case len(had) == 0 && in.ImportType == existingMaterial:
		return wrong("No key material was imported into this key yet.")
	case len(had) > 0 && !slices.ContainsFunc(had, func(m materialRecord) bool { return m.ID == text }):
		return wrong("It is not the key material that was imported into this key before.")
	case in.KeyMaterialID != "" && in.KeyMaterialID != text:
		return wrong("The key material is not the one that KeyMaterialId names.")
	}
	return id, nil
}

// DeleteImportedKeyMaterialInput deletes a key's material, which makes the key
// unusable until the same is imported again.
type DeleteImportedKeyMaterialInput struct {
	KeyID         string `json:"KeyId"`
	KeyMaterialID string `json:"KeyMaterialId,omitempty"`
}

// DeleteImportedKeyMaterialOutput is DeleteImportedKeyMaterial's.
type DeleteImportedKeyMaterialOutput struct {
	KeyID         string `json:"KeyId"` // ARN
	KeyMaterialID string `json:"KeyMaterialId,omitempty"`
}

func (in *DeleteImportedKeyMaterialInput) operation() operation {
	return importing("DeleteImportedKeyMaterial", in.KeyID, anyState)
}

func (in *DeleteImportedKeyMaterialInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	if in.KeyMaterialID != "" && in.KeyMaterialID != r.Current {
		return nil, refuse(codeNotFound, "Key material %s does not exist", in.KeyMaterialID)
	}
	out := &DeleteImportedKeyMaterialOutput{KeyID: c.key.arn, KeyMaterialID: r.Current}
	if c.key.current == nil {
		return out, errUnchanged
	}
	r.dropMaterial()
	return out, nil
}

// imported is what lists and descriptions tell of imported material.
func (m *materialRecord) imported(now time.Time) (state, model string, validTo *Timestamp) {
	if len(m.Sealed) == 0 || !m.Expires.IsZero() && !now.Before(m.Expires) {
		return statePending, "", nil
	}
	if m.Expires.IsZero() {
		return stateImported, materialForever, nil
	}
	return stateImported, materialExpires, timestamp(m.Expires)
}
