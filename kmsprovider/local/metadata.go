package local

import (
	"time"

	"kmsfs/kmsprovider"
)

// KeyMetadata is what `aws kms describe-key` shows of a key; it marshals to
// JSON with the same field names. Nothing in it is secret.
type KeyMetadata struct {
	AWSAccountID string    `json:"AWSAccountId"` // the keystore's account: 12 digits
	KeyID        string    `json:"KeyId"`        // a UUID
	ARN          string    `json:"Arn"`
	CreationDate Timestamp `json:"CreationDate"`
	Enabled      bool      `json:"Enabled"`
	Description  string    `json:"Description"`
	KeyUsage     string    `json:"KeyUsage"` // ENCRYPT_DECRYPT
	KeyState     string    `json:"KeyState"` // kmsprovider.StateEnabled, …

	DeletionDate    *Timestamp `json:"DeletionDate,omitempty"`    // of a key that is pending deletion
	ValidTo         *Timestamp `json:"ValidTo,omitempty"`         // of imported material that expires
	ExpirationModel string     `json:"ExpirationModel,omitempty"` // of imported material that is there

	Origin                string   `json:"Origin"`                // AWS_KMS or EXTERNAL
	KeyManager            string   `json:"KeyManager"`            // CUSTOMER or SERVICE
	CustomerMasterKeySpec string   `json:"CustomerMasterKeySpec"` // KeySpec's old name
	KeySpec               string   `json:"KeySpec"`               // SYMMETRIC_DEFAULT
	EncryptionAlgorithms  []string `json:"EncryptionAlgorithms"`  // SYMMETRIC_DEFAULT
	MultiRegion           bool     `json:"MultiRegion"`
	CurrentKeyMaterialID  string   `json:"CurrentKeyMaterialId,omitempty"` // 64 hex digits
}

// Alias is an entry of `aws kms list-aliases`, with the same JSON field names.
type Alias struct {
	AliasName       string    `json:"AliasName"` // alias/NAME
	AliasARN        string    `json:"AliasArn"`
	TargetKeyID     string    `json:"TargetKeyId"` // a UUID
	CreationDate    Timestamp `json:"CreationDate"`
	LastUpdatedDate Timestamp `json:"LastUpdatedDate"`
}

// The constant fields of a key.
const (
	keyUsage       = "ENCRYPT_DECRYPT"
	keySpec        = "SYMMETRIC_DEFAULT"
	jsonCustomer   = "CUSTOMER"
	jsonService    = "SERVICE"
	maxDescription = 8192 // bytes
)

func (r *keyRecord) metadata(account string, now time.Time) KeyMetadata {
	manager := jsonCustomer
	if r.Manager == kmsprovider.ManagerService {
		manager = jsonService
	}
	state := r.state(now)
	m := KeyMetadata{
		AWSAccountID:          account,
		KeyID:                 r.ID,
		ARN:                   keyARN(account, r.ID),
		CreationDate:          Timestamp{r.Created},
		Enabled:               state == kmsprovider.StateEnabled,
		Description:           r.Description,
		KeyUsage:              keyUsage,
		KeyState:              state,
		DeletionDate:          timestamp(r.Deletion),
		Origin:                r.Origin,
		KeyManager:            manager,
		CustomerMasterKeySpec: keySpec,
		KeySpec:               keySpec,
		EncryptionAlgorithms:  []string{algorithm},
		CurrentKeyMaterialID:  r.Current,
	}
	if r.Origin == originExternal && len(r.Materials) > 0 {
		_, m.ExpirationModel, m.ValidTo = r.Materials[0].imported(now)
	}
	return m
}

func (m KeyMetadata) info() kmsprovider.KeyInfo {
	manager := kmsprovider.ManagerCustomer
	if m.KeyManager == jsonService {
		manager = kmsprovider.ManagerService
	}
	return kmsprovider.KeyInfo{
		KeyID:       m.ARN,
		Provider:    providerName,
		State:       m.KeyState,
		Description: m.Description,
		Created:     m.CreationDate.Time,
		Manager:     manager,
		Origin:      m.Origin,
	}
}

func (r *aliasRecord) alias(account string) Alias {
	return Alias{
		AliasName:       r.Name,
		AliasARN:        aliasARN(account, r.Name),
		TargetKeyID:     r.Target,
		CreationDate:    Timestamp{r.Created},
		LastUpdatedDate: Timestamp{r.Updated},
	}
}
