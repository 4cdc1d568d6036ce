package volume

import (
	"fmt"
)

// FindingKind says what is wrong, in a word that does not change.
type FindingKind string

// Findings about the volume, its directories and names.
const (
	FindingConfig       FindingKind = "config"        // volume.json
	FindingConfigBackup FindingKind = "config-backup" // volume.json.bak
	FindingDirRecord    FindingKind = "directory-record"
	FindingDirBinding   FindingKind = "directory-binding"
	FindingDirCopy      FindingKind = "duplicate-directory" // another one has its ID
	FindingName         FindingKind = "name"                // does not decrypt
	FindingSymlink      FindingKind = "symlink"
	FindingXattr        FindingKind = "xattr"
	FindingForeign      FindingKind = "foreign"    // nothing that kmsfs wrote
	FindingUnreadable   FindingKind = "unreadable" // the backing store does not give it
)

// Findings about data files.
const (
	FindingHeader   FindingKind = "header"       // without a file ID
	FindingRecord   FindingKind = "record"       // damaged
	FindingSize     FindingKind = "size"         // not that of the record
	FindingTornTail FindingKind = "torn-tail"    // 1 to 40 bytes
	FindingBinding  FindingKind = "binding"      // bound to another place
	FindingCopy     FindingKind = "duplicate"    // another file has its ID
	FindingBlock    FindingKind = "block"        // damaged
	FindingErased   FindingKind = "erased-block" // a hole where none can be
	FindingStored   FindingKind = "stored"       // count of blocks
	FindingRoot     FindingKind = "root"         // of the blocks
	FindingNoRoot   FindingKind = "root-absent"  // harmless
	FindingSidecar  FindingKind = "sidecar"      // missing or damaged: nobody can read the file
	FindingRefused  FindingKind = "key-refused"  // the KMS denies its use at present
)

// What nobody uses. It takes up space, and is harmless.
const (
	FindingOrphan   FindingKind = "orphaned-sidecar"
	FindingLeftover FindingKind = "leftover" // of something interrupted
)

// Finding is something that is not as it should be.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Path     string      `json:"path"`    // plaintext, from the volume's root; "" for what has no name there
	Backing  string      `json:"backing"` // path below BACKING
	Block    int64       `json:"block"`   // -1: not about one
	Problem  string      `json:"problem"`
	Harmless bool        `json:"harmless"` // nothing is damaged, lost or hidden
	Repaired bool        `json:"repaired"`
	Note     string      `json:"note"` // what the repair did, or why it did not
}

func (f *Finding) String() string {
	s := fmt.Sprintf("%s: %q (backing file %q)", f.Kind, f.Path, f.Backing)
	if f.Block >= 0 {
		s += fmt.Sprintf(", block %d", f.Block)
	}
	s += ": " + f.Problem
	if f.Note != "" {
		s += "; " + f.Note
	}
	return s
}

// repaired says what was done.
func (f *Finding) repaired(format string, args ...any) {
	f.Repaired, f.Note = true, fmt.Sprintf(format, args...)
}

// left says why nothing was done.
func (f *Finding) left(format string, args ...any) { f.Note = fmt.Sprintf(format, args...) }

// mended says what was done, or with an error why it was not.
func (f *Finding) mended(err error, format string, args ...any) {
	if err != nil {
		f.left("it could not be repaired: %v", err)
		return
	}
	f.repaired(format, args...)
}

func (c *fsck) add(f *Finding) *Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.findings = append(c.findings, f)
	return f
}

// find notes something about an entry of the tree.
func (c *fsck) find(kind FindingKind, e *fsckEntry, format string, args ...any) *Finding {
	return c.add(&Finding{Kind: kind, Path: e.path(), Backing: e.backingPath(), Block: -1, Problem: fmt.Sprintf(format, args...)})
}

// findMeta notes something about a file that is kmsfs's own.
func (c *fsck) findMeta(kind FindingKind, backing, format string, args ...any) *Finding {
	return c.add(&Finding{Kind: kind, Backing: backing, Block: -1, Problem: fmt.Sprintf(format, args...)})
}

// doubt notes that a file's ID is not proven: its key may be one that nothing seems
// to use.
func (c *fsck) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.doubtful = true
}

// lookAway notes that something could not be looked at.
func (c *fsck) lookAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blind = true
}
