// Package kms tests the local KMS with clients that are not ours: the aws
// command, aws-encryption-cli and AWS's SDK, against kmsfs kms serve.
//
//	server_test.go       the server's process
//	callers_test.go      calls through the aws command, and straight over HTTP
//	emulators_test.go    the table of docs/KMS.md: what AWS KMS, kmsfs and moto do
//	probes_test.go       how each of its rows is found out
//	encryption_test.go   aws-encryption-cli
//	kill_test.go         kill -9 and SIGTERM
//	manual_test.go       the commands of docs/KMS.md and docs/ENVELOPES.md
package kms
