package formatreader

import (
	"fmt"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// Entry is an entry of the plaintext, as the manifests of golden volumes have it.
type Entry struct {
	Path   string            `json:"path"`
	Kind   string            `json:"kind"`
	Mode   string            `json:"mode"`
	Size   uint64            `json:"size,omitempty"`
	SHA256 string            `json:"sha256,omitempty"`
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
	Links  string            `json:"links,omitempty"`
	Mtime  string            `json:"mtime"`
}

// volume is one that is being read.
type volume struct {
	archive  *archive
	backing  string // where in the archive the backing directory is
	keystore *keystore
	identity age.Identity

	config configuration
	id     id
	key    []byte
	siv    *subtle.AESSIV

	files   map[id]*inode
	dirs    map[string]id     // by path in the archive
	plain   map[string]string // likewise, the plaintext paths
	entries []Entry
	bound   []binding // what has two bindings
	// sidecars that do not name exactly the active keys
	older int
	// what is wrong, and which features of records were there
	complaints []string
	features   map[string]bool
}

func (v *volume) wrong(where, format string, args ...any) {
	v.complaints = append(v.complaints, where+": "+fmt.Sprintf(format, args...))
}

func (v *volume) seen(r record) {
	v.features["holes"] = v.features["holes"] || r.stored < (r.size+4095)/4096
	v.features["no root"] = v.features["no root"] || r.flags&rootAbsent != 0
	v.features["was linked"] = v.features["was linked"] || r.flags&wasLinked != 0
	v.features["rewritten"] = v.features["rewritten"] || r.generation > 1
}

// unwrap opens what the KMS of that name has wrapped.
func (v *volume) unwrap(provider, keyID string, wrapped []byte, context map[string]string) ([]byte, error) {
	switch provider {
	case "local":
		return v.keystore.unwrap(keyID, wrapped, context)
	case "age":
		return unwrapAge(v.identity, wrapped, context)
	}
	return nil, fmt.Errorf("unknown provider %q", provider)
}

// read reads a volume and all that belongs to it.
func read(a *archive, passphrase string) (*volume, error) {
	v, err := begin(a, passphrase)
	if err == nil {
		v.root()
	}
	return v, err
}

// begin opens the volume key, and reads nothing else yet.
func begin(a *archive, passphrase string) (*volume, error) {
	v := &volume{archive: a, backing: "backing", files: make(map[id]*inode), dirs: make(map[string]id), plain: make(map[string]string), features: make(map[string]bool)}
	b, _, err := a.file("keystore.json")
	if err != nil {
		return nil, err
	}
	if v.keystore, err = openKeystore(b, passphrase); err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	if b, _, err = a.file("age.txt"); err != nil {
		return nil, err
	}
	if v.identity, err = age.ParseX25519Identity(string(b[:len(b)-1])); err != nil {
		return nil, err
	}
	if b, _, err = a.file("backing/.kmsfs/volume.json"); err != nil {
		return nil, err
	}
	if err := v.readConfig(b); err != nil {
		return nil, fmt.Errorf("volume.json: %w", err)
	}
	if v.siv, err = subtle.NewAESSIV(deriveSize(v.key, 64, "names")); err != nil {
		return nil, err
	}
	return v, nil
}

// root reads all from the root directory on.
func (v *volume) root() {
	n := v.archive.inodes[v.backing]
	own := id(derive(v.key, "root directory"))
	e := Entry{Path: ".", Kind: "directory", Mode: fmt.Sprintf("%04o", n.mode), Mtime: stamp(n.mtime)}
	v.attributes(n, &e, own)
	v.entries = append(v.entries, e)
	if v.archive.has(v.backing, ".kmsfs.dir") {
		v.wrong(".", "the root has a record")
	}
	v.directory(v.backing, ".", own)
}

func ascii(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
