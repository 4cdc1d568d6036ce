package local

import (
	"strconv"
	"time"

	"kmsfs/kmsprovider"
)

// Days between automatic rotations, and how often a key can be rotated on
// demand.
const (
	minRotation   = 90
	maxRotation   = 2560
	usualRotation = 365
	maxOnDemand   = 25
)

// rotating describes an operation on the rotation of a key; imported keys have
// none.
func rotating(name, keyID string) operation {
	op := managing(name, keyID, enabled)
	op.origin = originKMS
	return op
}

// EnableKeyRotationInput has a key rotated every so many days.
type EnableKeyRotationInput struct {
	KeyID                string `json:"KeyId"`
	RotationPeriodInDays *int   `json:"RotationPeriodInDays,omitempty"` // 90 to 2560; nil: as before, or 365
}

func (in *EnableKeyRotationInput) operation() operation {
	return rotating("EnableKeyRotation", in.KeyID)
}

func (in *EnableKeyRotationInput) check() error {
	if p := in.RotationPeriodInDays; p != nil && (*p < minRotation || *p > maxRotation) {
		return invalid("rotationPeriodInDays", "Member must have value between %d and %d", minRotation, maxRotation)
	}
	return nil
}

func (in *EnableKeyRotationInput) conditions() map[string][]string {
	if in.RotationPeriodInDays == nil {
		return nil
	}
	return map[string][]string{"kms:RotationPeriodInDays": {strconv.Itoa(*in.RotationPeriodInDays)}}
}

func (in *EnableKeyRotationInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	days := usualRotation
	switch {
	case in.RotationPeriodInDays != nil:
		days = *in.RotationPeriodInDays
	case r.Rotation != nil:
		return nil, errUnchanged
	}
	r.Rotation = &rotationRecord{Days: days, Next: c.now.AddDate(0, 0, days)}
	return nil, nil
}

// DisableKeyRotationInput ends automatic rotation.
type DisableKeyRotationInput struct {
	KeyID string `json:"KeyId"`
}

func (in *DisableKeyRotationInput) operation() operation {
	return rotating("DisableKeyRotation", in.KeyID)
}

func (in *DisableKeyRotationInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	if r.Rotation == nil {
		return nil, errUnchanged
	}
	r.Rotation = nil
	return nil, nil
}

// GetKeyRotationStatusInput asks whether a key is rotated automatically.
type GetKeyRotationStatusInput struct {
	KeyID string `json:"KeyId"`
}

// GetKeyRotationStatusOutput is GetKeyRotationStatus's.
type GetKeyRotationStatusOutput struct {
	KeyID                string     `json:"KeyId"` // ARN
	KeyRotationEnabled   bool       `json:"KeyRotationEnabled"`
	NextRotationDate     *Timestamp `json:"NextRotationDate,omitempty"`
	RotationPeriodInDays int        `json:"RotationPeriodInDays,omitempty"`
}

func (in *GetKeyRotationStatusInput) operation() operation {
	op := onKey("GetKeyRotationStatus", in.KeyID, anyState)
	op.byKey, op.origin = true, originKMS
	return op
}

func (in *GetKeyRotationStatusInput) perform(c *call) (any, error) {
	out := &GetKeyRotationStatusOutput{KeyID: c.key.arn}
	// A key that is to be deleted keeps its rotation in case it is not, and
	// says it has none.
	if r := c.key.record.rotation(); r != nil && c.key.record.State != kmsprovider.StatePendingDeletion {
		out.KeyRotationEnabled, out.RotationPeriodInDays, out.NextRotationDate = true, r.Days, timestamp(r.Next)
	}
	return out, nil
}

// RotateKeyOnDemandInput gives a key new material at once. What the old
// material encrypted it goes on to decrypt; the automatic rotation stays as it
// is.
type RotateKeyOnDemandInput struct {
	KeyID string `json:"KeyId"`
}

// RotateKeyOnDemandOutput is RotateKeyOnDemand's.
type RotateKeyOnDemandOutput struct {
	KeyID string `json:"KeyId"` // ARN
}

func (in *RotateKeyOnDemandInput) operation() operation {
	return rotating("RotateKeyOnDemand", in.KeyID)
}

func (in *RotateKeyOnDemandInput) perform(c *call) (any, error) {
	r := c.keyRecord()
	done := 0
	for _, m := range r.Materials {
		if m.Rotated == rotatedOnDemand {
			done++
		}
	}
	if done >= maxOnDemand {
		return nil, refuse(codeLimit, "%s was rotated on demand %d times, which is the most a key can be.", c.key.arn, done)
	}
	return &RotateKeyOnDemandOutput{c.key.arn}, c.k.rotate(c.doc, r, rotatedOnDemand, c.now)
}

// rotate gives r new material, which encrypts from now on.
func (k *Keystore) rotate(d *document, r *keyRecord, how string, now time.Time) error {
	return k.addMaterial(d, r, materialRecord{Created: now, Rotated: how})
}

// ListKeyRotationsInput lists the rotations of a key, the oldest first.
type ListKeyRotationsInput struct {
	KeyID              string `json:"KeyId"`
	IncludeKeyMaterial string `json:"IncludeKeyMaterial,omitempty"` // ROTATIONS_ONLY, or ALL_KEY_MATERIAL: the first material too
	Limit              *int   `json:"Limit,omitempty"`              // 1 to 1000; nil: 100
	Marker             string `json:"Marker,omitempty"`
}

// ListKeyRotationsOutput is ListKeyRotations's.
type ListKeyRotationsOutput struct {
	Rotations  []RotationsListEntry `json:"Rotations"`
	NextMarker string               `json:"NextMarker,omitempty"`
	Truncated  bool                 `json:"Truncated"`
}

// RotationsListEntry is a key material and how it came.
type RotationsListEntry struct {
	KeyID            string     `json:"KeyId"`                     // ARN
	KeyMaterialID    string     `json:"KeyMaterialId"`             // 64 hex digits
	ImportState      string     `json:"ImportState,omitempty"`     // IMPORTED or PENDING_IMPORT
	KeyMaterialState string     `json:"KeyMaterialState"`          // CURRENT or NON_CURRENT
	ExpirationModel  string     `json:"ExpirationModel,omitempty"` // of imported material
	ValidTo          *Timestamp `json:"ValidTo,omitempty"`
	RotationDate     *Timestamp `json:"RotationDate,omitempty"`
	RotationType     string     `json:"RotationType,omitempty"` // AUTOMATIC or ON_DEMAND
}

const (
	rotationsOnly = "ROTATIONS_ONLY"
	allMaterial   = "ALL_KEY_MATERIAL"
)

func (in *ListKeyRotationsInput) operation() operation {
	op := onKey("ListKeyRotations", in.KeyID, anyState)
	op.byKey = true
	return op
}

func (in *ListKeyRotationsInput) check() error {
	return checkEnum("includeKeyMaterial", in.IncludeKeyMaterial, "", rotationsOnly, allMaterial)
}

func (in *ListKeyRotationsInput) perform(c *call) (any, error) {
	all := []RotationsListEntry{}
	for _, m := range c.key.record.Materials {
		if m.Rotated == "" && in.IncludeKeyMaterial != allMaterial {
			continue
		}
		e := RotationsListEntry{KeyID: c.key.arn, KeyMaterialID: m.ID, KeyMaterialState: "NON_CURRENT", RotationType: m.Rotated}
		if m.ID == c.key.record.Current {
			e.KeyMaterialState = "CURRENT"
		}
		if m.Rotated != "" {
			e.RotationDate = timestamp(m.Created)
		}
		if c.key.record.Origin == originExternal {
			e.ImportState, e.ExpirationModel, e.ValidTo = m.imported(c.now)
		}
		all = append(all, e)
	}
	some, next, err := page(all, in.Limit, 100, in.Marker, func(e RotationsListEntry) string { return e.KeyMaterialID })
	return &ListKeyRotationsOutput{Rotations: some, NextMarker: next, Truncated: next != ""}, err
}
