package local

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local/policy"
)

// keyRecord is a KMS key. Its metadata is in the clear, its material sealed.
// What is not there is left out of the file, so that a keystore written before
// there was such a thing stays valid.
type keyRecord struct {
	ID          string           `json:"id"` // a UUID
	Created     time.Time        `json:"created"`
	Description string           `json:"description"`
	Manager     string           `json:"manager"` // kmsprovider.ManagerCustomer or ManagerService
	Origin      string           `json:"origin"`  // originKMS or originExternal
	State       string           `json:"state"`   // kmsprovider.StateEnabled, …; see keyRecord.state for what time makes of it
	Current     string           `json:"current"` // ID of the material that encrypts; empty before the first import
	Materials   []materialRecord `json:"materials"`
	Deletion    time.Time        `json:"deletion,omitzero"` // when it is over; set in StatePendingDeletion alone
	Rotation    *rotationRecord  `json:"rotation,omitempty"`
	Policy      string           `json:"policy,omitempty"` // the document; empty: policy.Default
	Tags        []Tag            `json:"tags,omitempty"`
	Grants      []grantRecord    `json:"grants,omitempty"`
}

// materialRecord is one key material; all of a key's materials decrypt.
type materialRecord struct {
	ID      string    `json:"id"` // 64 hex digits
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"`            // 32 bytes under the key-encrypting key; empty: imported, and gone
	Rotated string    `json:"rotated,omitempty"` // rotatedAutomatic or rotatedOnDemand; empty: the first one
	Expires time.Time `json:"expires,omitzero"`  // imported material that expires
}

// rotationRecord is automatic rotation, where it is on.
type rotationRecord struct {
	Days int       `json:"days"`
	Next time.Time `json:"next"`
}

// grantRecord is a grant on the key whose record it is in.
type grantRecord struct {
	ID          string            `json:"id"` // 64 hex digits
	Name        string            `json:"name,omitempty"`
	Created     time.Time         `json:"created"`
	Grantee     string            `json:"grantee"`
	Retiring    string            `json:"retiring,omitempty"`
	Operations  []string          `json:"operations"`
	Constraints *GrantConstraints `json:"constraints,omitempty"`
}

type aliasRecord struct {
	Name    string    `json:"name"`   // alias/NAME
	Target  string    `json:"target"` // a key's UUID
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// principalRecord is a user of the account.
type principalRecord struct {
	Name        string    `json:"name"`
	AccessKeyID string    `json:"access_key_id"`
	Created     time.Time `json:"created"`
	Sealed      []byte    `json:"sealed_secret"` // the secret access key, under the key-encrypting key
	Policy      string    `json:"policy,omitempty"`
}

const (
	originKMS        = "AWS_KMS"
	originExternal   = "EXTERNAL"
	rotatedAutomatic = "AUTOMATIC"
	rotatedOnDemand  = "ON_DEMAND"
)

func (r *keyRecord) check() error {
	if _, ok := parseKeyUUID(r.ID); !ok {
		return errors.New("bad ID")
	}
	if r.Manager != kmsprovider.ManagerCustomer && r.Manager != kmsprovider.ManagerService {
		return fmt.Errorf("unknown manager %.20q", r.Manager)
	}
	if err := checkDescription(r.Description); err != nil {
		return err
	}
	if err := r.checkState(); err != nil {
		return err
	}
	if err := r.checkMaterials(); err != nil {
		return err
	}
	if r.Rotation != nil && (r.Origin != originKMS || r.Rotation.Days < minRotation || r.Rotation.Days > maxRotation) {
		return errors.New("bad rotation")
	}
	if r.Policy != "" {
		if _, err := policy.Parse([]byte(r.Policy), policy.KeyPolicy); err != nil {
			return err
		}
	}
	if err := checkTags(r.Tags, true); err != nil {
		return err
	}
	seen := make(map[string]bool, len(r.Grants))
	for i := range r.Grants {
		if err := r.Grants[i].check(); err != nil || seen[r.Grants[i].ID] {
			return fmt.Errorf("grant %d: there twice, or: %v", i, err)
		}
		seen[r.Grants[i].ID] = true
	}
	return nil
}

func (r *keyRecord) checkState() error {
	switch r.State {
	case kmsprovider.StateEnabled, kmsprovider.StateDisabled, kmsprovider.StatePendingDeletion:
	case kmsprovider.StatePendingImport:
		if r.Origin != originExternal {
			return errors.New("pending an import and not made for one")
		}
	default:
		return fmt.Errorf("unknown state %.20q", r.State)
	}
	if (r.State == kmsprovider.StatePendingDeletion) == r.Deletion.IsZero() {
		return errors.New("state and date of deletion disagree")
	}
	return nil
}

func (r *keyRecord) checkMaterials() error {
	external := r.Origin == originExternal
	if !external && r.Origin != originKMS {
		return fmt.Errorf("unknown origin %.20q", r.Origin)
	}
	seen := make(map[materialID]bool, len(r.Materials))
	for i, m := range r.Materials {
		id, ok := parseMaterialID(m.ID)
		if !ok || seen[id] {
			return fmt.Errorf("material %d: its ID is bad or there twice", i)
		}
		gone := external && len(m.Sealed) == 0
		if len(m.Sealed) != sealedKeySize && !gone {
			return fmt.Errorf("material %d: %d bytes", i, len(m.Sealed))
		}
		if m.Rotated != "" && m.Rotated != rotatedAutomatic && m.Rotated != rotatedOnDemand || !external && !m.Expires.IsZero() {
			return fmt.Errorf("material %d: bad rotation or expiry", i)
		}
		if gone && (r.State == kmsprovider.StateEnabled || r.State == kmsprovider.StateDisabled) {
			return fmt.Errorf("material %d: gone from a key that is %s", i, r.State)
		}
		seen[id] = true
	}
	if external && len(r.Materials) == 0 {
		if r.Current != "" || r.State == kmsprovider.StateEnabled || r.State == kmsprovider.StateDisabled {
			return errors.New("current material is missing")
		}
		return nil
	}
	if id, ok := parseMaterialID(r.Current); !ok || !seen[id] || external && len(r.Materials) > 1 {
		return errors.New("current material is missing, or one of several imported ones")
	}
	return nil
}

func (p *principalRecord) check() error {
	if err := checkPrincipalName(p.Name); err != nil {
		return err
	}
	if !validAccessKeyID(p.AccessKeyID) || len(p.Sealed) != sealedSecretSize {
		return errors.New("bad access key")
	}
	if p.Policy != "" {
		if _, err := policy.Parse([]byte(p.Policy), policy.IdentityPolicy); err != nil {
			return err
		}
	}
	return nil
}

func parseMaterialID(s string) (materialID, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != materialIDSize || hex.EncodeToString(b) != s {
		return materialID{}, false
	}
	return materialID(b), true
}
