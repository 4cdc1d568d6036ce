package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// MaxName is the length of the longest plaintext name, in bytes.
const MaxName = 255

// brokenPrefix begins the names under which entries are listed whose backing
// name does not decrypt; 16 hex digits of its SHA-256 follow.
const brokenPrefix = "kmsfs-broken."

func brokenName(backing string) string {
	sum := sha256.Sum256([]byte(backing))
	return brokenPrefix + hex.EncodeToString(sum[:8])
}

// withSuffix puts something behind a name, of which the end goes, characters as
// wholes, where both would be too long.
func withSuffix(name, suffix string) string {
	end := min(len(name), MaxName-len(suffix))
	for cut := 0; end < len(name) && cut < utf8.UTFMax; cut++ {
		if utf8.RuneStart(name[end-cut]) {
			end -= cut
			break
		}
	}
	return name[:end] + suffix
}

// entryName is a plaintext name and how the backing directory spells it.
type entryName struct {
	plain   string
	backing string
	full    string // the whole encrypted name where backing is its short form, else ""
}

// encode gives the backing name of an entry of directory n.
func (n *Node) encode(name string) (entryName, error) {
	if len(name) > MaxName {
		return entryName{}, unix.ENAMETOOLONG
	}
	id, err := n.dirID()
	if err != nil {
		return entryName{}, err
	}
	if last := n.vol.encoded.Load(); last != nil && last.dir == id && last.plain == name {
		return last.entryName, nil
	}
	enc, err := n.vol.names.Encrypt(id, name)
	if err != nil {
		return entryName{}, fmt.Errorf("%w: %w", unix.EINVAL, err)
	}
	e := entryName{plain: name, backing: enc}
	if len(enc) > crypto.MaxBackingName {
		e.backing, e.full = crypto.ShortName(enc), enc
	}
	n.vol.encoded.Store(&encodedName{dir: id, entryName: e})
	return e, nil
}

// encodedName is a name in a directory: the one that was asked for last, since who
// creates or removes something has looked it up just before.
type encodedName struct {
	dir crypto.ID
	entryName
}

// decode gives the plaintext name of a backing entry of directory n, whose ID
// is id and which is open as dirfd.
func (v *Volume) decode(id crypto.ID, dirfd int, backing string) (string, error) {
	enc := backing
	if isLongName(backing) {
		b, err := readSmall(v.backing, dirfd, backing+crypto.LongSuffix, maxLongName)
		if err != nil {
			return "", fmt.Errorf("read long name: %w", err)
		}
		if enc = string(b); crypto.ShortName(enc) != backing {
			return "", fmt.Errorf("long name of %s is another's", backing)
		}
	}
	return v.names.Decrypt(id, enc)
}

// maxLongName is more than the encrypted form of a name of 255 bytes.
const maxLongName = 512

// storeLongName writes the file that holds a long encrypted name, if the name
// is long. One that is there already is the same: its own name is its hash.
func (n *Node) storeLongName(dirfd int, e entryName) error {
	if e.full == "" {
		return nil
	}
	k, name := n.vol.backing, e.backing+crypto.LongSuffix
	n.vol.debts.owe(nameDebt(n, e.backing), nil)
	err := writeNew(k, dirfd, name, 0o600, []byte(e.full))
	if err != unix.EEXIST {
		return err
	}
	if b, err := readSmall(k, dirfd, name, maxLongName); err == nil && string(b) == e.full {
		return nil
	}
	// Cut short by a crash, or damaged: write it anew.
	if err := k.Unlinkat(dirfd, name, 0); err != nil && err != unix.ENOENT {
		return err
	}
	return writeNew(k, dirfd, name, 0o600, []byte(e.full))
}

// dropLongName removes the file of a long name once its entry is gone. What
// cannot be removed only takes up space.
func (v *Volume) dropLongName(dirfd int, backing string) {
	if isLongName(backing) {
		_ = v.backing.Unlinkat(dirfd, backing+crypto.LongSuffix, 0)
	}
}

// isLongName tells whether a backing name is the short form of a long one.
func isLongName(backing string) bool { return strings.HasPrefix(backing, crypto.LongPrefix) }

// isTemporary tells what a crash may have left in a directory.
func isTemporary(backing string) bool { return strings.HasPrefix(backing, tmpPrefix) }

// isOwn tells whether a backing entry is kmsfs's own, and so not listed.
func (n *Node) isOwn(backing string) bool {
	switch {
	case backing == "." || backing == "..":
		return true
	case backing == recordName || isTemporary(backing):
		return true
	case n == n.vol.root && backing == metaDir:
		return true
	}
	return isLongNameFile(backing)
}

func isLongNameFile(backing string) bool {
	return strings.HasPrefix(backing, crypto.LongPrefix) && strings.HasSuffix(backing, crypto.LongSuffix)
}
