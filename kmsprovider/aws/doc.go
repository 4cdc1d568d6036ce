// Package aws is the provider of keys in AWS KMS, and in whatever else speaks
// its protocol: kmsfs kms serve, or an emulator.
//
// A key is named by its ARN or by the ARN of an alias, and asked for in the
// region that the ARN says, with one SDK client per region. Credentials,
// profiles, proxies, endpoints (AWS_ENDPOINT_URL_KMS) and FIPS endpoints
// (AWS_USE_FIPS_ENDPOINT) are found by the SDK's default chain.
//
// # What is promised
//
//   - No call takes longer than the caller's context and Options.Timeout allow,
//     credentials included.
//   - What may pass (throttling, 5xx, lost connections) is tried again by the
//     SDK's standard mode as long as there is time, or AWS_MAX_ATTEMPTS times
//     where that is set. What is final (denied, disabled, wrong key, wrong
//     context, no credentials) is asked once.
//   - The KeyId of every answer is that of the key asked for; for a multi-Region
//     key, that of the replica in the region asked. An answer of another key is
//     ErrIncorrectKey, and its plaintext is wiped.
//   - Answers are bounded in size before they are read.
//   - An error is an *Error and matches the sentinels of kmsprovider. It holds
//     what the KMS says of the failure, never a request or an answer.
//
// # Plaintext in memory
//
// The plaintext that is handed out is the SDK's own buffer, so wiping it wipes
// it. What the SDK, net/http and TLS made of it on the way (the JSON text, with
// the key in base64, and the records) cannot be reached, and lives until the
// garbage collector reuses it.
//
// # Files
//
//	provider.go      Provider, its operations, and the checks of answers
//	arn.go           the names of keys
//	clients.go       configuration and clients, one per region
//	credentials.go   credentials, told apart from other failures
//	transport.go     timeouts and limits of HTTP
//	attempts.go      which failures are tried again, and what the last one was
//	errors.go        Error: from the SDK's errors to the sentinels
package aws
