// Package envelope reads and writes messages of the AWS Encryption SDK: a file
// encrypted under a data key, together with that data key wrapped under one or
// more wrapping keys (the envelope). The official SDKs and aws-encryption-cli
// read what it writes, and it reads what they write.
//
// # Map
//
//	suite.go      Suite: the eleven algorithm suites
//	header.go     Header, and ParseHeader
//	encrypt.go    Encrypt
//	decrypt.go    Decrypt
//	errors.go     what callers can tell apart
//	keyring.go    Keyring and EncryptedDataKey: who wraps and opens data keys
//	multi.go      several keyrings as one
//	kms.go        keyrings of KMS keys
//	discovery.go  the keyring that opens with whatever KMS key the message names
//	arn.go        the ARNs of KMS keys, and which of them stand for each other
//	rawkey.go     ParseRawKey: keyrings of raw keys, and the files that these are in
//	rawaes.go     the keyring of an AES key
//	rawrsa.go     the keyring of an RSA key
//	materials.go  what a message is encrypted and decrypted with
//	signkey.go    the key that signs a message, and its public half in the context
//	policy.go     CommitmentPolicy
package envelope
