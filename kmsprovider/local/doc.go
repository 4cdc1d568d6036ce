// Package local is the default KMS of kmsfs: root keys in one file on this
// machine, the keystore, under a passphrase. It has AWS KMS's operations, rules,
// errors and names, so that what works with it works with AWS. The provider, the
// verbs of kmsfs kms and the server of AWS's protocol are all callers of Do.
//
// # Keys
//
// The passphrase goes through Argon2id to the key that seals the random
// key-encrypting key (KEK). Of the KEK's subkeys one seals the key materials,
// and others authenticate the file and the audit log. Every KMS key has one or
// more key materials; the current one encrypts, all of them decrypt: rotation
// adds one. Sealing is XAES-256-GCM with random nonces throughout.
//
// A key is the user's own, with material of this KMS or imported, or it is the
// default key, which kmsfs makes for itself at first use, rotates every year and
// lets nobody change, disable or delete.
//
// # Who may
//
// The account's root is whoever has the passphrase, and the provider: bound by
// key policies alone. Principals come through a server. An explicit Deny wins;
// then a key policy or a grant has to allow, or the key policy leaves it to the
// account and the principal's own policy allows. Who may not call does not learn
// a key's state. Operations on principals are kmsfs's own, see IsOwn.
//
// # Invariants
//
//   - No call returns key material, and no error, format verb or event shows any.
//   - Every call is an event of the audit log, and what the log cannot take is not
//     done: an answer is given, and a change is made, after its event is written.
//     After kill -9 the log may end in a change that was not made, not the other
//     way round.
//   - The whole file is authenticated: an edited policy, state, alias or
//     parameter is refused like an edited key. An unkeyed checksum tells damage
//     from a wrong passphrase; against an attacker only the MAC counts.
//   - A file asks for no more memory or time than the bounds in kdf.go allow,
//     and is at most 64 MiB.
//   - Each sealed key material is bound to its keystore, key and material ID;
//     each wrapped key to its key, key material and encryption context.
//   - The file is only ever replaced: temporary, fsync, rename, fsync of the
//     directory. After kill -9 or a power cut it is the old one or the new one.
//     A key that a call returned, or that a reader saw, is never lost.
//   - A change is made under an exclusive lock on FILE.lock, on the newest
//     state. Readers take no lock: every call compares the file's stat with that
//     of the state it holds and reads the file again if they differ. So a key
//     made or disabled by another process counts at the next call, for the price
//     of one stat per call; there is no cache time to wait for. Using a key
//     writes nothing but the audit log.
//   - What time makes due, see settle.go, is done by the first call after it.
//   - If the file is missing, damaged or another keystore's when it is read
//     again, calls fail with ErrUnavailable and that cause until it is put back.
//
// Lock order: Keystore.writer, the file lock, Keystore.auditing, Keystore.mu.
// Keystore.mu is held for reading while keys are used, so that none is wiped
// under a call.
//
// # Deviations from AWS KMS
//
//   - Keys are symmetric encryption keys in one Region, "local". Operations for
//     others are UnsupportedOperationException, as are multi-Region keys, custom
//     key stores and a second material for an imported key.
//   - Everything counts at once; grant tokens are made and not needed.
//   - The deleted principal of a key policy is not replaced by an ID: a new one of
//     that name gets what the policy says.
//   - KeyManager of the default key is SERVICE.
//
// # What is not defended
//
// Somebody who can write the file can put back an older keystore of the same
// passphrase, and with it disabled keys that were enabled then; nothing here
// remembers what the newest one was. They can also delete it. Whoever sets the
// clock decides what is due. Swap and core dumps are the caller's to prevent.
//
// # Files
//
// The keystore:
//
//	keystore.go   Options, Create, Open, Close
//	passphrase.go a new passphrase
//	state.go      the current state: reading it again, changing it
//	settle.go     what time does to keys
//	snapshot.go   one state, opened: keys by name, materials ready to use
//	document.go   the keystore file, its JSON and its checks
//	records.go    what is in it
//	seal.go       the KEK, its subkeys, MAC and checksum
//	kdf.go        Argon2id and its bounds
//	file.go       replacing, locking and reading the file
//	blob.go       the layout of a wrapped key
//	wrap.go       sealing and opening under a key
//	material.go   new key material
//
// Calls:
//
//	do.go         Do: the one way in for every call
//	operation.go  Input, the table of operations
//	authorize.go  who may, and whether the key's state allows it
//	request.go    the condition keys that policies see
//	auditing.go   the events of the audit log
//	caller.go     who calls
//	check.go      the checks that several inputs share
//	page.go       lists in pages
//	apierror.go   Error, AWS KMS's codes
//	errors.go     the sentinels
//	timestamp.go  dates as AWS's JSON has them
//	names.go      UUIDs, ARNs
//	metadata.go   KeyMetadata, Alias: what AWS's CLI shows
//	provider.go   the methods of kmsprovider.Provider
//
// Operations:
//
//	keys.go        creating, listing and describing keys; the default key
//	lifecycle.go   enabling, disabling and deleting
//	rotation.go    automatic and on demand
//	importing.go   imported material
//	importtoken.go the wrapping key and token of an import
//	encrypt.go     Encrypt, Decrypt, ReEncrypt
//	datakey.go     GenerateDataKey, GenerateRandom
//	aliases.go     aliases
//	tags.go        tags
//	keypolicy.go   key policies
//	grants.go      making and ending grants, their constraints
//	grantlists.go  listing grants; grant tokens
//	principals.go  principals, their access keys and policies
package local
