package local

import (
	"kmsfs/kmsprovider"
)

// algorithm is the only EncryptionAlgorithm of symmetric keys.
const algorithm = "SYMMETRIC_DEFAULT"

// EncryptInput encrypts 1 to 4096 bytes under a key.
type EncryptInput struct {
	KeyID               string              `json:"KeyId"`
	Plaintext           []byte              `json:"Plaintext"`
	EncryptionContext   kmsprovider.Context `json:"EncryptionContext,omitempty"`
	EncryptionAlgorithm string              `json:"EncryptionAlgorithm,omitempty"`
	GrantTokens         []string            `json:"GrantTokens,omitempty" audit:"-"`
	DryRun              bool                `json:"DryRun,omitempty"`
}

// EncryptOutput is Encrypt's.
type EncryptOutput struct {
	CiphertextBlob      []byte `json:"CiphertextBlob"`
	KeyID               string `json:"KeyId"` // ARN
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

func (in *EncryptInput) operation() operation {
	return using("Encrypt", in.KeyID, in.EncryptionContext, in.GrantTokens, in.DryRun)
}

func (in *EncryptInput) check() error {
	switch n := len(in.Plaintext); {
	case n < 1:
		return invalid("plaintext", "Member must have length greater than or equal to 1")
	case n > kmsprovider.MaxPlaintext:
		return invalid("plaintext", "Member must have length less than or equal to %d", kmsprovider.MaxPlaintext)
	}
	return firstError(checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm), checkContext("encryptionContext", in.EncryptionContext))
}

func (in *EncryptInput) perform(c *call) (any, error) {
	wrapped, err := c.key.wrap(c.k.random, in.Plaintext, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &EncryptOutput{CiphertextBlob: wrapped, KeyID: c.key.arn, EncryptionAlgorithm: algorithm}, nil
}

// DecryptInput decrypts a ciphertext blob. Which key it is the blob tells;
// KeyId, if it is there, must name the same one.
type DecryptInput struct {
	CiphertextBlob      []byte              `json:"CiphertextBlob"`
	EncryptionContext   kmsprovider.Context `json:"EncryptionContext,omitempty"`
	KeyID               string              `json:"KeyId,omitempty"`
	EncryptionAlgorithm string              `json:"EncryptionAlgorithm,omitempty"`
	GrantTokens         []string            `json:"GrantTokens,omitempty" audit:"-"`
	DryRun              bool                `json:"DryRun,omitempty"`
}

// DecryptOutput is Decrypt's.
type DecryptOutput struct {
	KeyID               string `json:"KeyId"` // ARN
	Plaintext           []byte `json:"Plaintext"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
	KeyMaterialID       string `json:"KeyMaterialId"` // 64 hex digits
}

func (out *DecryptOutput) wipe() { clear(out.Plaintext) }

func (in *DecryptInput) operation() operation {
	return using("Decrypt", in.KeyID, in.EncryptionContext, in.GrantTokens, in.DryRun)
}

func (in *DecryptInput) check() error {
	return firstError(checkCiphertext(in.CiphertextBlob), checkAlgorithm("encryptionAlgorithm", in.EncryptionAlgorithm), checkContext("encryptionContext", in.EncryptionContext))
}

func (in *DecryptInput) needs(c *call) ([]need, error) {
	key, err := c.keyOf(in.CiphertextBlob, in.KeyID)
	return []need{{action: "Decrypt", key: key, keyID: in.KeyID, states: enabled, ec: in.EncryptionContext, hasEC: true}}, err
}

func (in *DecryptInput) perform(c *call) (any, error) {
	plaintext, material, err := c.key.unwrap(in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &DecryptOutput{KeyID: c.key.arn, Plaintext: plaintext, EncryptionAlgorithm: algorithm, KeyMaterialID: material.String()}, nil
}

// ReEncryptInput moves a ciphertext blob to another key or context; the
// plaintext does not leave the KMS.
type ReEncryptInput struct {
	CiphertextBlob                 []byte              `json:"CiphertextBlob"`
	SourceEncryptionContext        kmsprovider.Context `json:"SourceEncryptionContext,omitempty"`
	SourceKeyID                    string              `json:"SourceKeyId,omitempty"`
	DestinationKeyID               string              `json:"DestinationKeyId"`
	DestinationEncryptionContext   kmsprovider.Context `json:"DestinationEncryptionContext,omitempty"`
	SourceEncryptionAlgorithm      string              `json:"SourceEncryptionAlgorithm,omitempty"`
	DestinationEncryptionAlgorithm string              `json:"DestinationEncryptionAlgorithm,omitempty"`
	GrantTokens                    []string            `json:"GrantTokens,omitempty" audit:"-"`
	DryRun                         bool                `json:"DryRun,omitempty"`
}

// ReEncryptOutput is ReEncrypt's.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte `json:"CiphertextBlob"`
	SourceKeyID                    string `json:"SourceKeyId"` // ARN
	KeyID                          string `json:"KeyId"`       // ARN of the destination
	SourceEncryptionAlgorithm      string `json:"SourceEncryptionAlgorithm"`
	DestinationEncryptionAlgorithm string `json:"DestinationEncryptionAlgorithm"`
	SourceKeyMaterialID            string `json:"SourceKeyMaterialId"`
	DestinationKeyMaterialID       string `json:"DestinationKeyMaterialId"`
}

func (in *ReEncryptInput) operation() operation {
	return operation{name: "ReEncrypt", tokens: in.GrantTokens, dryRun: in.DryRun}
}

func (in *ReEncryptInput) check() error {
	return firstError(
		checkCiphertext(in.CiphertextBlob),
		checkAlgorithm("sourceEncryptionAlgorithm", in.SourceEncryptionAlgorithm),
		checkAlgorithm("destinationEncryptionAlgorithm", in.DestinationEncryptionAlgorithm),
		checkContext("sourceEncryptionContext", in.SourceEncryptionContext),
		checkContext("destinationEncryptionContext", in.DestinationEncryptionContext),
	)
}

func (in *ReEncryptInput) needs(c *call) ([]need, error) {
	from, err := c.keyOf(in.CiphertextBlob, in.SourceKeyID)
	if err != nil {
		return nil, err
	}
	to, err := c.state.find(in.DestinationKeyID, false, c.now)
	return []need{
		{action: "ReEncryptFrom", key: from, keyID: in.SourceKeyID, states: enabled, ec: in.SourceEncryptionContext, hasEC: true},
		{action: "ReEncryptTo", key: to, keyID: in.DestinationKeyID, states: enabled, ec: in.DestinationEncryptionContext, hasEC: true},
	}, err
}

func (in *ReEncryptInput) perform(c *call) (any, error) {
	to := c.needs[1].key
	plaintext, material, err := c.key.unwrap(in.CiphertextBlob, in.SourceEncryptionContext)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	wrapped, err := to.wrap(c.k.random, plaintext, in.DestinationEncryptionContext)
	if err != nil {
		return nil, err
	}
	return &ReEncryptOutput{
		CiphertextBlob: wrapped, SourceKeyID: c.key.arn, KeyID: to.arn,
		SourceEncryptionAlgorithm: algorithm, DestinationEncryptionAlgorithm: algorithm,
		SourceKeyMaterialID: material.String(), DestinationKeyMaterialID: to.currentID.String(),
	}, nil
}
