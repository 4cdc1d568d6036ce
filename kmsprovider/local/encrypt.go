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
	GrantTokens         []string            `json:"GrantTokens,omitempty"`
	DryRun              bool                `json:"DryRun,omitempty"`
}

// EncryptOutput is Encrypt's.
type EncryptOutput struct {
	CiphertextBlob      []byte `json:"CiphertextBlob"`
	KeyID               string `json:"KeyId"` // ARN
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

func (in *EncryptInput) operation() operation {
	return operation{name: "Encrypt", needsKey: true, key: in.KeyID, states: enabled, dryRun: in.DryRun}
}

func (in *EncryptInput) perform(c *call) (any, error) {
	if n := len(in.Plaintext); n < 1 || n > kmsprovider.MaxPlaintext {
		return nil, invalid("plaintext", "Member must have length between 1 and %d", kmsprovider.MaxPlaintext)
	}
	wrapped, err := c.key.wrap(c.k.random, in.Plaintext, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &EncryptOutput{CiphertextBlob: wrapped, KeyID: c.key.arn, EncryptionAlgorithm: algorithm}, nil
}

// DecryptInput decrypts a ciphertext blob.
type DecryptInput struct {
	CiphertextBlob      []byte              `json:"CiphertextBlob"`
	EncryptionContext   kmsprovider.Context `json:"EncryptionContext,omitempty"`
	KeyID               string              `json:"KeyId,omitempty"`
	EncryptionAlgorithm string              `json:"EncryptionAlgorithm,omitempty"`
	GrantTokens         []string            `json:"GrantTokens,omitempty"`
	DryRun              bool                `json:"DryRun,omitempty"`
}

// DecryptOutput is Decrypt's.
type DecryptOutput struct {
	KeyID               string `json:"KeyId"` // ARN
	Plaintext           []byte `json:"Plaintext"`
	EncryptionAlgorithm string `json:"EncryptionAlgorithm"`
}

func (in *DecryptInput) operation() operation {
	return operation{name: "Decrypt", needsKey: true, key: in.KeyID, states: enabled, dryRun: in.DryRun}
}

func (in *DecryptInput) perform(c *call) (any, error) {
	plaintext, err := c.key.unwrap(c.state, in.CiphertextBlob, in.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return &DecryptOutput{KeyID: c.key.arn, Plaintext: plaintext, EncryptionAlgorithm: algorithm}, nil
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
	GrantTokens                    []string            `json:"GrantTokens,omitempty"`
	DryRun                         bool                `json:"DryRun,omitempty"`
}

// ReEncryptOutput is ReEncrypt's.
type ReEncryptOutput struct {
	CiphertextBlob                 []byte `json:"CiphertextBlob"`
	SourceKeyID                    string `json:"SourceKeyId"` // ARN
	KeyID                          string `json:"KeyId"`       // ARN of the destination
	SourceEncryptionAlgorithm      string `json:"SourceEncryptionAlgorithm"`
	DestinationEncryptionAlgorithm string `json:"DestinationEncryptionAlgorithm"`
}

func (in *ReEncryptInput) operation() operation {
	return operation{name: "ReEncrypt", needsKey: true, key: in.SourceKeyID, states: enabled, dryRun: in.DryRun}
}

func (in *ReEncryptInput) perform(c *call) (any, error) {
	to, err := c.state.find(in.DestinationKeyID, false)
	if err != nil {
		return nil, err
	}
	if err := to.mustBe(enabled); err != nil {
		return nil, err
	}
	plaintext, err := c.key.unwrap(c.state, in.CiphertextBlob, in.SourceEncryptionContext)
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
	}, nil
}
