package volume

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"
)

// HasLastingOffsets tells whether positions in the backing store's directories last:
// one that a listing gave is good for another that was opened later, also when entries
// were removed in between. So it is where a position is a hash or a number that an
// entry keeps. Others count entries, as overlayfs does for each open directory, and
// would pass entries over.
func (v *Volume) HasLastingOffsets() bool {
	st, err := v.Statfs()
	if err != nil {
		return false
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC:
		return true
	case unix.TMPFS_MAGIC:
		var u unix.Utsname
		return unix.Uname(&u) == nil && tmpfsKeepsOffsets(u.Release[:])
	}
	return false
}

// tmpfsKeepsOffsets tells it of a kernel's release: from 6.6 on.
func tmpfsKeepsOffsets(release []byte) bool {
	var major, minor int
	if _, err := fmt.Fscanf(bytes.NewReader(release), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 6
}
