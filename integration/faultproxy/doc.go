// Package faultproxy stands between a client of AWS KMS or S3 and a real server,
// and fails in the ways that networks and services do. It counts what comes.
//
//	proxy.go      Proxy: the listener, which can refuse, and the counts
//	faults.go     Fault: what happens to a request
//	answers.go    Fault: what happens to the answer of the server
//	protocol.go   what operations and errors look like in each protocol
package faultproxy
