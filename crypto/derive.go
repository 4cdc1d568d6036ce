package crypto

// Label says what a derived key is for. Two uses never share a label.
type Label string

// labelPrefix begins the HKDF info of every derivation; it changes with the major version of the format.
const labelPrefix = "kmsfs v1 "

// Labels derived from the file secret.
const (
	LabelContent Label = "content" // blocks
	LabelRoot    Label = "root"    // the sum over all blocks
	LabelCommit  Label = "commit"  // with volume and file ID: the sidecar's commitment
)

// Labels derived from the volume key.
const (
	LabelRecord        Label = "record"         // with the file ID: header records
	LabelNames         Label = "names"          // 64 bytes: AES-SIV of names
	LabelSymlink       Label = "symlink"        // symlink targets
	LabelXattr         Label = "xattr"          // values of extended attributes
	LabelDir           Label = "dir"            // directory records
	LabelBind          Label = "bind"           // HMAC that binds a record to its name
	LabelConfig        Label = "config"         // HMAC of volume.json
	LabelWrap          Label = "wrap"           // data keys in key mode volume
	LabelRedo          Label = "redo"           // HMAC of redo slots
	LabelManifest      Label = "manifest"       // snapshot manifests
	LabelFingerprint   Label = "fingerprint"    // what a host remembers of the volume
	LabelFileSalt      Label = "file salt"      // salt of every file secret
	LabelRootDirectory Label = "root directory" // ID of the root directory
)

// Derive gives HKDF-Expand(PRK = k, info = "kmsfs v1 " ‖ label ‖ raw IDs, 32 bytes), RFC 5869 with SHA-256. k must be
// uniformly random, as all keys of this package are.
func (k *Key) Derive(l Label, ids ...ID) *Key {
	b := k.expand(l, KeySize, ids...)
	defer clear(b)
	return keyOf(b)
}

func (k *Key) expand(l Label, size int, ids ...ID) []byte {
	info := make([]byte, 0, len(labelPrefix)+len(l)+len(ids)*len(ID{}))
	info = append(info, labelPrefix...)
	info = append(info, l...)
	for _, id := range ids {
		info = append(info, id[:]...)
	}
	out := make([]byte, size)
	hkdfExpand(out, k, info)
	return out
}

// Commitment ties a file secret to its volume and file; it is public and stands in the sidecar.
func Commitment(secret *Key, volume, file ID) [32]byte {
	return [32]byte(secret.Derive(LabelCommit, volume, file).material())
}

// RootDirectoryID is the ID of the volume's root directory, which has no parent that could hold one.
func RootDirectoryID(vk *Key) ID {
	return ID(vk.Derive(LabelRootDirectory).material()[:len(ID{})])
}

// Fingerprint is what a host remembers, and a user compares, of a volume key. It is public.
func Fingerprint(vk *Key) [32]byte {
	return [32]byte(vk.Derive(LabelFingerprint).material())
}
