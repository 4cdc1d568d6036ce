// Package kmsserver serves the local KMS over AWS's own protocol, JSON 1.1 with
// X-Amz-Target TrentService.OPERATION, so that the aws command, every SDK and
// aws-encryption-cli work with it unchanged.
//
// # Invariants
//
//   - It listens on loopback addresses and Unix sockets, and nowhere else: the
//     protocol is not encrypted.
//   - Every call is one Keystore.Do. What a caller may do, the state of keys and
//     the audit log are that package's; here is no second way in.
//   - Only AWS's operations are offered: principals and their policies are not
//     managed over the wire.
//   - Under AuthSigV4 a request is performed only if its signature is the one
//     that AWS's own signer makes with the principal's secret, over the host, every
//     X-Amz header and the body, at most five minutes ago. The signer wants the
//     secret as a string, which cannot be wiped: it is garbage after the request.
//   - Under AuthNone everybody who reaches the server is the account's root.
//     Requests that come from a web page, or by a host name that is none of
//     loopback's, are refused.
//   - Requests are bounded in size and time. Bodies with plaintexts are wiped
//     once they are written. Nothing of a request is logged but in the audit log.
//   - When its context ends, the server takes no new requests, finishes those
//     it has, and then returns.
//
// Codes and HTTP statuses are those that AWS KMS sends: 400 for whatever the
// caller can mend, also for signatures (InvalidSignatureException,
// where query-protocol services say SignatureDoesNotMatch with 403), and 500.
//
// # Files
//
//	listen.go      where it may listen
//	server.go      Server: serving and stopping
//	handler.go     one request, from its target to its answer
//	operations.go  the names of AWS's operations
//	sigv4.go       who signed a request
//	answer.go      results and errors as AWS writes them
package kmsserver
