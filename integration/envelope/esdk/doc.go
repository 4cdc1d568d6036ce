// Package esdk tests package envelope against AWS's Encryption SDK for Go: what the one writes the other reads, with
// KMS keys, raw keys, several at once, and a required encryption context.
//
// It is a module of its own, so that the SDK's dependencies (DynamoDB, a transpiler's runtime) do not become those of
// kmsfs. scripts/test runs it as a step; by hand:
//
//	go -C integration/envelope/esdk test ./...
//
// The first time this builds the SDK, which takes minutes. Where the go.mod of kmsfs itself changes, this one follows by
// `go -C integration/envelope/esdk mod tidy`.
//
// Map:
//
//	official_test.go   the SDK: clients, keyrings
//	ours_test.go       package envelope, likewise
//	messages_test.go   messages that go both ways
package esdk
