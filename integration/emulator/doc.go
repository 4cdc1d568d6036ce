// Package emulator starts servers that speak AWS KMS's protocol on loopback, for
// tests. It knows nothing of kmsfs's own provider.
//
//	emulator.go   Server, and the calls that set it up
//	moto.go       moto's server: the wire format, without KMS's rules
package emulator
