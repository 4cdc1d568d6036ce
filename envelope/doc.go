// Package envelope reads and writes messages of the AWS Encryption SDK: a file
// encrypted under a data key, together with that data key wrapped under one or
// more wrapping keys (the envelope). The official SDKs and aws-encryption-cli
// read what it writes, and it reads what they write.
//
// A message is a header (which keys, which context, how long the frames), a body
// of frames that are encrypted one by one, and with most suites a footer that
// signs both. Specification: awslabs/aws-encryption-sdk-specification on GitHub;
// comments name its files.
//
// # Map
//
//	suite.go      Suite: the eleven algorithm suites
//	header.go     Header, its layout, and ParseHeader
//	context.go    the encryption context as bytes
//	derive.go     from the data key to the cipher; commitment and header tag
//	frame.go      the layout of bodies; sealing and opening frames
//	body.go       from a stream to frames and back
//	nonframed.go  bodies that are not framed, which are only read
//	gcmstream.go  AES-GCM piece by piece, for those
//	footer.go     the signature
//	source.go     a reader whose buffer can be wiped
//	pipeline.go   batches of frames through several workers, in order
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
//	testdata      golden messages of the official SDK for Python, and make.py, which made them;
//	              in fuzz what fuzzing found to reach each part of the code
//
// # Invariants
//
//   - No plaintext is written before its tag verified, and of a message's end none
//     before the footer and the end of the stream did. The exception is asked for:
//     DecryptOptions.Provisional.
//   - Commitment and header tag are checked before the body is looked at.
//   - A length in a message is not believed: memory grows as bytes arrive, up to
//     MaxFrameLength, and does not grow with the message.
//   - Each header has one spelling: what is parsed is written again with the same
//     bytes. What the specification allows to be written, and no more, is read.
//   - The key of a message is used for nothing else; IVs are sequence numbers.
//   - Data keys, derived keys and buffers that held plaintext are wiped. The key
//     schedules of the standard library cannot be, nor its signing keys.
package envelope
