// Package local is the default KMS of kmsfs: root keys in one file on this
// machine, the keystore, under a passphrase. It has AWS KMS's rules and names,
// so that what works with it works with AWS.
//
// # Keys
//
// The passphrase goes through Argon2id to the key that seals the random
// key-encrypting key (KEK). Of the KEK's two subkeys one seals the key
// materials, and one authenticates the file. Every KMS key has one or more key
// materials; the current one encrypts, all of them decrypt. Sealing is
// XAES-256-GCM with random nonces throughout.
//
// # Invariants
//
//   - No call returns key material, and no error or format verb shows any.
//   - The whole file is authenticated: an edited description, state, alias or
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
//     of one stat per call; there is no cache time to wait for.
//   - If the file is missing, damaged or another keystore's when it is read
//     again, calls fail with ErrUnavailable and that cause until it is put back.
//
// Lock order: the file lock, then Keystore.mu. Keystore.mu is held for reading
// while keys are used, so that none is wiped under a call.
//
// # What is not defended
//
// Somebody who can write the file can put back an older keystore of the same
// passphrase, and with it disabled keys that were enabled then; nothing here
// remembers what the newest one was. They can also delete it. Swap and core
// dumps are the caller's to prevent.
//
// # Files
//
//	keystore.go   Options, Create, Open, Close
//	operation.go  Input, the table of operations
//	do.go         Do: the one way in for every call
//	caller.go     who calls
//	apierror.go   Error, AWS KMS's codes
//	timestamp.go  dates as AWS's JSON has them
//	provider.go   the methods of kmsprovider.Provider
//	keys.go       creating, listing, enabling and disabling keys
//	aliases.go    creating and listing aliases
//	encrypt.go    Encrypt, Decrypt, ReEncrypt
//	datakey.go    GenerateDataKey
//	wrap.go       sealing and opening under a key
//	metadata.go   KeyMetadata, Alias: what AWS's CLI shows
//	names.go      UUIDs, ARNs, the rules for aliases
//	blob.go       the layout of a wrapped key
//	state.go      the current state: reading it again, changing it
//	snapshot.go   one state, opened: keys by name, materials ready to use
//	document.go   the keystore file, its JSON and its checks
//	seal.go       the KEK, its subkeys, MAC and checksum
//	kdf.go        Argon2id and its bounds
//	file.go       replacing, locking and reading the file
//	errors.go     the sentinels
package local
