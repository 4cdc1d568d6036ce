package local

import (
	"fmt"
	"io"

	"kmsfs/kmsprovider"
)

// GenerateDataKeyInput makes a data key, in plaintext and wrapped.
type GenerateDataKeyInput struct {
	KeyID             string              `json:"KeyId"`
	EncryptionContext kmsprovider.Context `json:"EncryptionContext,omitempty"`
	NumberOfBytes     *int                `json:"NumberOfBytes,omitempty"` // 1 to 1024, or
	KeySpec           string              `json:"KeySpec,omitempty"`       // AES_256, AES_128
	GrantTokens       []string            `json:"GrantTokens,omitempty"`
	DryRun            bool                `json:"DryRun,omitempty"`
}

// GenerateDataKeyOutput is GenerateDataKey's.
type GenerateDataKeyOutput struct {
	CiphertextBlob []byte `json:"CiphertextBlob"`
	Plaintext      []byte `json:"Plaintext"`
	KeyID          string `json:"KeyId"` // ARN
}

func (in *GenerateDataKeyInput) operation() operation {
	return operation{name: "GenerateDataKey", needsKey: true, key: in.KeyID, states: enabled, dryRun: in.DryRun}
}

func (in *GenerateDataKeyInput) perform(c *call) (any, error) {
	plaintext := make([]byte, kmsprovider.DataKeySize)
	if _, err := io.ReadFull(c.k.random, plaintext); err != nil {
		return nil, fmt.Errorf("draw data key: %w", err)
	}
	wrapped, err := c.key.wrap(c.k.random, plaintext, in.EncryptionContext)
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	return &GenerateDataKeyOutput{CiphertextBlob: wrapped, Plaintext: plaintext, KeyID: c.key.arn}, nil
}
