package snapshot

import (
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// What kmsfs keeps in a backing directory for itself (docs/FORMAT.md).
const (
	metaDir    = ".kmsfs"
	recordName = ".kmsfs.dir"
	tmpPrefix  = ".kmsfs.tmp."
	keysDir    = "keys"
	linksDir   = "links"
	sessions   = "sessions"

	maxSidecar = 1 << 17 // bytes, more than any has
	maxHistory = 5       // looks at a tree whose names change
)

// isOwn tells whether a name in a directory is none of an entry.
func isOwn(name string) bool {
	return name == recordName || strings.HasPrefix(name, tmpPrefix) || isLongNameFile(name)
}

func isLongNameFile(name string) bool {
	return strings.HasPrefix(name, crypto.LongPrefix) && strings.HasSuffix(name, crypto.LongSuffix)
}

func isLongName(name string) bool { return strings.HasPrefix(name, crypto.LongPrefix) }

func sidecarPath(id crypto.ID) string {
	s := id.String()
	return metaDir + "/" + keysDir + "/" + s[:2] + "/" + s
}

// readSidecar reads a sidecar, with .kmsfs/keys open as keys.
func readSidecar(keys int, id crypto.ID) ([]byte, error) {
	if keys < 0 {
		return nil, unix.ENOENT
	}
	s := id.String()
	shelf, err := openat(keys, s[:2], unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(shelf)
	return readSmall(shelf, s, maxSidecar)
}
