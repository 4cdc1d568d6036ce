// Package kmsprovider is the small interface between kmsfs and a key
// management service (KMS), and what all its implementations share: the
// errors, the encryption context, the names of keys and the registry.
//
// A KMS holds root keys that never leave it. kmsfs asks it for data keys, each
// of which comes twice: in plaintext, to work with, and wrapped under a root
// key, to store. Implementations live in folders of their own (local, aws, …),
// so that this package needs nothing but the standard library.
//
// # Invariants
//
//   - Every wrapped key is bound to a root key and to an encryption context.
//     It opens under both, exactly, or not at all.
//   - A caller names the root key it expects. A wrapped key made under another
//     one is ErrIncorrectKey, even where the KMS could open it.
//   - Plaintext that a provider returns belongs to the caller, who wipes it.
//     Providers keep no reference to their arguments after they return.
//   - Errors match one of the sentinels of errors.go or the context's own
//     error with errors.Is, and never hold key material.
//   - The suite in providertest runs against every provider.
//
// # Files
//
//	provider.go   Provider, KeyInfo, the size limits
//	context.go    Context, the encryption context and its canonical bytes
//	errors.go     the sentinels
//	uri.go        KeyURI, how users name keys
//	registry.go   Registry, providers by name, opened on first use
//	around.go     Around, a provider with something put before its calls
//	meter.go      Meter, which counts calls and failures
package kmsprovider
