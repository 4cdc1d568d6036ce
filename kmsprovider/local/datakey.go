package local

import (
	"kmsfs/kmsprovider"
)

// maxRandom is the most bytes that a data key or GenerateRandom can have.
const maxRandom = 1024

// GenerateDataKeyInput makes a data key, in plaintext and wrapped. Either
// KeySpec or NumberOfBytes says how long it is.
type GenerateDataKeyInput struct {
	KeyID             string              `json:"KeyId"`
	EncryptionContext kmsprovider.Context `json:"EncryptionContext,omitempty"`
	NumberOfBytes     *int                `json:"NumberOfBytes,omitempty"` // 1 to 1024
	KeySpec           string              `json:"KeySpec,omitempty"`       // AES_256 or AES_128
	GrantTokens       []string            `json:"GrantTokens,omitempty" audit:"-"`
	DryRun            bool                `json:"DryRun,omitempty"`
}

// GenerateDataKeyOutput is GenerateDataKey's.
type GenerateDataKeyOutput struct {
	CiphertextBlob []byte `json:"CiphertextBlob"`
	Plaintext      []byte `json:"Plaintext"`
	KeyID          string `json:"KeyId"`         // ARN
	KeyMaterialID  string `json:"KeyMaterialId"` // 64 hex digits
}

func (out *GenerateDataKeyOutput) wipe() { clear(out.Plaintext) }

func (in *GenerateDataKeyInput) operation() operation {
	return using("GenerateDataKey", in.KeyID, in.EncryptionContext, in.GrantTokens, in.DryRun)
}

func (in *GenerateDataKeyInput) check() error {
	_, err := in.size()
	return firstError(err, checkContext("encryptionContext", in.EncryptionContext))
}

// size is the length of the data key in bytes.
func (in *GenerateDataKeyInput) size() (int, error) {
	if (in.KeySpec == "") == (in.NumberOfBytes == nil) {
		return 0, refuse(codeValidation, "Please specify either number of bytes or key spec.")
	}
	if in.NumberOfBytes != nil {
		return *in.NumberOfBytes, checkRandom(*in.NumberOfBytes)
	}
	if err := checkEnum("keySpec", in.KeySpec, "AES_256", "AES_128"); err != nil {
		return 0, err
	}
	if in.KeySpec == "AES_128" {
		return 16, nil
	}
	return kmsprovider.DataKeySize, nil
}

func (in *GenerateDataKeyInput) perform(c *call) (any, error) {
	size, err := in.size()
	if err != nil {
		return nil, err
	}
	plaintext, err := c.k.draw("data key", size)
	if err != nil {
		return nil, err
	}
	wrapped, err := c.key.wrap(c.k.random, plaintext, in.EncryptionContext)
	if err != nil {
		clear(plaintext)
		return nil, err
	}
	return &GenerateDataKeyOutput{CiphertextBlob: wrapped, Plaintext: plaintext, KeyID: c.key.arn, KeyMaterialID: c.key.currentID.String()}, nil
}

// GenerateDataKeyWithoutPlaintextInput makes a data key for later: wrapped
// alone.
type GenerateDataKeyWithoutPlaintextInput GenerateDataKeyInput

// GenerateDataKeyWithoutPlaintextOutput is GenerateDataKeyWithoutPlaintext's.
type GenerateDataKeyWithoutPlaintextOutput struct {
	CiphertextBlob []byte `json:"CiphertextBlob"`
	KeyID          string `json:"KeyId"`         // ARN
	KeyMaterialID  string `json:"KeyMaterialId"` // 64 hex digits
}

func (in *GenerateDataKeyWithoutPlaintextInput) operation() operation {
	op := (*GenerateDataKeyInput)(in).operation()
	op.name = "GenerateDataKeyWithoutPlaintext"
	return op
}

func (in *GenerateDataKeyWithoutPlaintextInput) check() error {
	return (*GenerateDataKeyInput)(in).check()
}

func (in *GenerateDataKeyWithoutPlaintextInput) perform(c *call) (any, error) {
	made, err := (*GenerateDataKeyInput)(in).perform(c)
	if err != nil {
		return nil, err
	}
	out := made.(*GenerateDataKeyOutput)
	out.wipe()
	return &GenerateDataKeyWithoutPlaintextOutput{CiphertextBlob: out.CiphertextBlob, KeyID: out.KeyID, KeyMaterialID: out.KeyMaterialID}, nil
}

// GenerateRandomInput makes 1 to 1024 random bytes.
type GenerateRandomInput struct {
	NumberOfBytes    *int   `json:"NumberOfBytes,omitempty"`
	CustomKeyStoreID string `json:"CustomKeyStoreId,omitempty"`
}

// GenerateRandomOutput is GenerateRandom's.
type GenerateRandomOutput struct {
	Plaintext []byte `json:"Plaintext"`
}

func (out *GenerateRandomOutput) wipe() { clear(out.Plaintext) }

func (in *GenerateRandomInput) operation() operation { return operation{name: "GenerateRandom"} }

func (in *GenerateRandomInput) check() error {
	switch {
	case in.CustomKeyStoreID != "":
		return refuse(codeUnsupported, "Custom key stores are not supported.")
	case in.NumberOfBytes == nil:
		return refuse(codeValidation, "NumberOfBytes is required.")
	}
	return checkRandom(*in.NumberOfBytes)
}

func (in *GenerateRandomInput) perform(c *call) (any, error) {
	b, err := c.k.draw("random bytes", *in.NumberOfBytes)
	if err != nil {
		return nil, err
	}
	return &GenerateRandomOutput{b}, nil
}

func checkRandom(n int) error {
	switch {
	case n < 1:
		return invalid("numberOfBytes", "Member must have value greater than or equal to 1")
	case n > maxRandom:
		return invalid("numberOfBytes", "Member must have value less than or equal to %d", maxRandom)
	}
	return nil
}
