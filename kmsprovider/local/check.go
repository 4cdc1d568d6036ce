package local

import (
	"slices"
	"strings"

	"kmsfs/kmsprovider"
)

// The checks of members that several inputs have. They are named in messages
// as AWS names them: in lower case.

// checkEnum refuses a value that is none of allowed.
func checkEnum(member, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return refuse(codeValidation, "1 validation error detected: Value '%.100s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]",
		value, member, strings.Join(slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return s == "" }), ", "))
}

// checkAlgorithm refuses an EncryptionAlgorithm of asymmetric keys.
func checkAlgorithm(member, value string) error {
	if slices.Contains([]string{"RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256", "SM2PKE"}, value) {
		return refuse("InvalidKeyUsageException", "Algorithm %s and key spec SYMMETRIC_DEFAULT are incompatible.", value).of(kmsprovider.ErrInvalidInput)
	}
	return checkEnum(member, value, "", algorithm)
}

func checkContext(member string, ec kmsprovider.Context) error {
	if err := ec.Check(); err != nil {
		return refuse(codeValidation, "1 validation error detected: Value at '%s' failed to satisfy constraint: %v", member, err)
	}
	return nil
}

// checkCiphertext refuses a blob that no ciphertext can be.
func checkCiphertext(b []byte) error {
	switch {
	case len(b) == 0:
		return invalid("ciphertextBlob", "Member must have length greater than or equal to 1").of(kmsprovider.ErrInvalidCiphertext)
	case len(b) > kmsprovider.MaxCiphertext:
		return invalid("ciphertextBlob", "Member must have length less than or equal to %d", kmsprovider.MaxCiphertext).of(kmsprovider.ErrInvalidCiphertext)
	}
	return nil
}

// conditionBool is a truth value as policies have it.
func conditionBool(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
