// Package crypto turns the plaintext of a kmsfs volume into bytes that may lie on untrusted storage, and back. It is
// pure: functions on bytes, without input or output. Files, the KMS and FUSE are the business of other packages. The
// format it implements is docs/FORMAT.md.
//
// # Invariants
//
//   - No exported function takes a nonce. Whatever seals draws its nonces from the random source it was given;
//     production passes crypto/rand.Reader, and any source must be safe for concurrent use where the sealer is.
//   - Every AEAD but that of names, AES-SIV, is XAES-256-GCM (C2SP), so a random nonce never needs a count of messages,
//     except within one writer session, which limits itself (see session in keyring.go).
//   - What is opened is authenticated in full before any of it is returned. A destination is left zeroed on failure.
//   - Bytes from disk never panic. ErrMalformed says that they have the wrong shape, ErrAuthentication that no holder
//     of the key wrote them here. A panic always is a mistake of the calling code.
//   - Parsers are strict: what parses marshals to the same bytes.
//   - Key material is a *Key, which redacts itself in logs, can be wiped and refuses to be used afterwards. Ciphers
//     have a Wipe as well, which overwrites what they expanded a key to (erase.go says how). Out of reach, and left to
//     the garbage collector, are derived keys that a keyring replaced.
//   - Sealing and opening blocks allocates nothing once the session's key is derived.
//   - Every cipher is safe for concurrent use, except that Wipe must not run beside another use.
//
// # Keys
//
//	volume key VK ─┬─ record(file) names symlink xattr dir bind config wrap redo manifest fingerprint
//	               └─ file salt ─┐
//	data key DEK ────────────────┴─ file secret ── content root commit(volume, file)
//
// # Files
//
//	errors.go     the sentinels
//	id.go         ID: volumes, files, directories, sessions
//	key.go        Key: 32 secret bytes
//	erase.go      overwriting expanded keys
//	mac.go        HMAC and HKDF that leave no copies of keys
//	derive.go     Label, and every key that is derived from another
//	xaes.go       XAES-256-GCM for single messages
//	keyring.go    derived AES-GCM keys by nonce prefix; writer sessions
//	layout.go     offset arithmetic between plaintext and backing file, which lives nowhere else
//	blocks.go     content blocks
//	root.go       the root: the sum over all blocks of a file
//	record.go     the header of a data file and the record in it
//	sidecar.go    wrapped data keys of a file, and their commitment
//	datakey.go    file secrets, and data keys wrapped by the volume key
//	dirrecord.go  the record of a directory
//	bind.go       bindings of records to a name in a directory
//	siv.go        AES-SIV, deterministic
//	names.go      file names
//	symlink.go    symlink targets
//	xattr.go      extended attributes
//	manifest.go   manifests of copies
//	base64.go     strict base64url
package crypto
