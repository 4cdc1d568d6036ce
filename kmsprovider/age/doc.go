// Package age is the provider of offline recovery keys: whoever has the public
// half, an age recipient, wraps, and only the identity, which can lie in a safe,
// opens. There is no server.
//
// # The wrapped key
//
// A wrapped key is an age file (age-encryption.org/v1, binary) to the one
// recipient. Its plaintext is
//
//	SHA-256("kmsfs v1 age context" ‖ canonical encryption context)   32 bytes
//	the wrapped bytes                                                1 to 4096
//
// so the context is authenticated with the rest, and the age command opens it
// where kmsfs is lost.
//
// # What is promised
//
//   - A key is named by its recipient, age1… or age1pq1…, and by nothing else.
//   - Without the recipient's identity Decrypt is ErrNotUsable, which is an
//     ErrAccessDenied, before anything is tried.
//   - An identity is read when it is first needed, so a volume that another key
//     opens never asks for it.
//
// # What is not
//
// Anybody who knows a recipient can wrap something for it, which in a KMS takes
// a permission. Whoever can write to a volume can put a wrapped key of his own
// there; that it does not fit is found by the volume's own authentication.
// Nothing can be disabled or revoked, and nothing is logged. age keeps
// identities in memory that cannot be wiped.
//
// # Files
//
//	provider.go     Provider and its operations
//	recipient.go    the names of keys
//	identities.go   identities, read when needed
package age
