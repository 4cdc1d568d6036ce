// Package emulator starts servers that speak AWS KMS's and S3's protocols on
// loopback, for tests. It reaches them by AWS's SDK and not by what is under test.
//
//	emulator.go   Server, and the calls that set it up
//	local.go      the local KMS, served as kms serve does
//	moto.go       moto's server: the wire format, without KMS's rules
//	store.go      S3 servers: moto's, and the Versity S3 Gateway
package emulator
