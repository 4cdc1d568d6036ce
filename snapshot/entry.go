package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Kind is what an entry of a manifest is.
type Kind uint8

const (
	kindEnd       Kind = iota // of the manifest
	kindUp                    // of a directory
	KindDirectory             // what is in it follows, until kindUp
	KindFile
	KindSymlink
	KindFIFO
	KindSocket
	KindCharDevice
	KindBlockDevice
	KindLink // one more name of what has the same Group

	kinds
)

func (k Kind) String() string {
	return [...]string{"end", "up", "directory", "file", "symbolic link", "FIFO", "socket", "character device", "block device", "hard link"}[k]
}

// kindOf is the kind of an inode that has no other name so far.
func kindOf(mode uint16) (Kind, error) {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return KindDirectory, nil
	case unix.S_IFREG:
		return KindFile, nil
	case unix.S_IFLNK:
		return KindSymlink, nil
	case unix.S_IFIFO:
		return KindFIFO, nil
	case unix.S_IFSOCK:
		return KindSocket, nil
	case unix.S_IFCHR:
		return KindCharDevice, nil
	case unix.S_IFBLK:
		return KindBlockDevice, nil
	}
	return 0, fmt.Errorf("unknown kind of inode %#o", mode)
}

// Entry is one name of a state. Entries follow one another as the tree is walked,
// those of a directory by the bytes of their backing names.
type Entry struct {
	Kind Kind
	// Name is the encrypted name in full, "" for the root.
	Name string
	Attributes
	// Group is the number of its link group, from 1 on; 0 for one name only. The
	// first entry of a group has all else, the others are of KindLink.
	Group uint64

	Record []byte // of a directory but the root
	File   *File
	Target string // of a symbolic link, as it is stored
	Long   []byte // of a symbolic link whose target is the name of a file in .kmsfs/links: what that holds
	Device uint64 // of a device: its number
}

// Attributes are those of the backing inode.
type Attributes struct {
	Mode         uint32 // permissions, suid, sgid and sticky bit
	UID, GID     uint32
	MTime, ATime unix.Timespec
	Xattrs       []Xattr // by name
}

// Xattr is an extended attribute as it is stored.
type Xattr struct {
	Name  string
	Value []byte
}

// File is what a state knows of a data file's content.
type File struct {
	ID         crypto.ID
	Generation uint64 // of its record, like the next four
	Flags      uint8
	Size       uint64 // of the plaintext, in bytes
	Stored     uint64 // blocks
	Root       [16]byte
	Header     [8]byte // headerSum
	Push       crypto.ID
	Extents    []Extent // of a sparse file: what the object holds of it
	Sum        [32]byte // SHA-256 of the object
	Checksum   string   // what the store says of an object sent in parts; else ""
	Sidecar    Slice
}

// Extent is a range of a backing file.
type Extent struct{ CipherOff, Length int64 }

// Slice is a piece of a bundle.
type Slice struct {
	Bundle         uint64 // index in the manifest's table
	Offset, Length uint32
	Sum            [16]byte // the first half of its SHA-256
}

// headerSum names what a data file is, in all its bytes: no two headers are the
// same, and each goes with one content.
func headerSum(header []byte) (sum [8]byte) {
	full := sha256.Sum256(header)
	return [8]byte(full[:])
}

// sliceSum is the Sum of a slice with that content.
func sliceSum(b []byte) (sum [16]byte) {
	full := sha256.Sum256(b)
	return [16]byte(full[:])
}

// Key is that of the object with its content.
func (f *File) Key() string {
	return fmt.Sprintf("%s%s-%d-%s", objectsOf(f.Push), f.ID, f.Generation, hex.EncodeToString(f.Header[:]))
}

// CipherSize is the length of the backing file, in bytes.
func (f *File) CipherSize() int64 {
	n, err := crypto.CipherSize(int64(f.Size))
	if err != nil {
		panic("snapshot: " + err.Error()) // sizes are checked where they come in
	}
	return n
}

// ObjectSize is the length of the object, in bytes.
func (f *File) ObjectSize() int64 {
	if f.Extents == nil {
		return f.CipherSize()
	}
	var n int64
	for _, e := range f.Extents {
		n += e.Length
	}
	return n
}

// backingName is how a name stands in the backing directory.
func backingName(name string) string {
	if len(name) > crypto.MaxBackingName {
		return crypto.ShortName(name)
	}
	return name
}

// Bundle is an object of many small things.
type Bundle struct {
	Push crypto.ID
	Sum  [32]byte
	Size uint32
	Live uint32 // bytes of it that the manifest refers to
}

// Key is that of the object.
func (b *Bundle) Key() string { return smallKey(b.Push, b.Sum) }

// Totals are what a manifest says at its end.
type Totals struct {
	Files, Directories, Others, Links uint64
	Bytes                             uint64 // of all objects with data files
	Bundles                           []Bundle
	// Digest is the same for the same state: SHA-256 of volume.json and all entries,
	// without access times and where in the bucket things are.
	Digest [32]byte
}

// Head is what a manifest says at its beginning.
type Head struct {
	Generation uint64
	Base       uint64 // the generation that its push went out from; 0 for none
	Push       crypto.ID
	Created    int64  // seconds since 1970
	Config     []byte // volume.json
}
