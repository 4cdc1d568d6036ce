// Package envelope tests kmsfs encrypt and decrypt with AWS's own encryption
// command, both as processes, and what they need of memory.
//
//	site_test.go       a KMS, and both commands with it
//	exchange_test.go   trees that one command encrypts and the other decrypts
//	metadata_test.go   what both write about the same message
//	memory_test.go     memory does not grow with the file
//
// Folder esdk is a module of its own: AWS's Encryption SDK for Go as a second
// oracle.
package envelope
