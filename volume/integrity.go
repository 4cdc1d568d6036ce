package volume

import (
	"fmt"
	"strings"
)

// IntegrityError says that something in the backing directory is not what
// kmsfs wrote: damaged, tampered with, moved, or put there by somebody else.
// It matches ErrIntegrity.
type IntegrityError struct {
	Path    string // plaintext path from the volume's root
	Backing string // path below the backing directory
	Block   int64  // block index, or -1 where it is not about one block
	Err     error
}

func (e *IntegrityError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "integrity of %q (backing file %q)", e.Path, e.Backing)
	if e.Block >= 0 {
		fmt.Fprintf(&b, ", block %d", e.Block)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap gives the cause; Is makes errors.Is(err, ErrIntegrity) true.
func (e *IntegrityError) Unwrap() error        { return e.Err }
func (e *IntegrityError) Is(target error) bool { return target == ErrIntegrity }

// integrity makes an IntegrityError about the node.
func (n *Node) integrity(block int64, err error) error {
	return &IntegrityError{Path: n.Path(), Backing: n.BackingPath(), Block: block, Err: err}
}
