// Package emulator starts servers that speak AWS KMS's protocol on loopback, for
// tests. It reaches them by AWS's SDK and not by the provider under test.
//
//	emulator.go   Server, and the calls that set it up
//	local.go      the local KMS, served as kms serve does
//	moto.go       moto's server: the wire format, without KMS's rules
package emulator
