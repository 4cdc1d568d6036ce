// Package providertest is the contract of kmsprovider.Provider as a test suite.
// Every provider runs it, those that talk to real servers included, so that
// the rest of kmsfs can rely on one behaviour.
//
// A server that is known to behave otherwise declares each Deviation. A
// deviation is asserted too: once the server is right, the declaration fails.
//
//	suite.go      Run, Fixture, Deviation
//	promises.go   what must work
//	refusals.go   what must be refused, and with which error
//	recorder.go   the watch for key material in errors
package providertest
