// Package formatreader reads volumes by docs/FORMAT.md and nothing else: it imports
// nothing of kmsfs, so that what it reads is what the document says. Its tests read the
// golden volumes of the package volume, out of their archives.
//
//	reader.go      a volume from its archive, the root directory
//	archive.go     the archive
//	primitives.go  derivation, XAES-256-GCM, base64url, the canonical encryption context
//	keystore.go    wrapped keys: the local KMS's keystore, age
//	config.go      volume.json
//	tree.go        directories, names, symlinks, extended attributes
//	datafile.go    headers, blocks, roots
//	binding.go     bindings A and B
//	sidecar.go     sidecars
//	redo.go        redo slots and intents
//	settle.go      what the next mount makes of them
package formatreader
