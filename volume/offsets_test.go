package volume

import (
	"testing"

	"golang.org/x/sys/unix"
)

// typed is a backing store of some kind of file system.
type typed struct {
	Backing
	kind int64
}

func (s typed) Statfs(fd int, st *unix.Statfs_t) error {
	err := s.Backing.Statfs(fd, st)
	st.Type = s.kind
	return err
}

func TestOffsetsLastOnStoresThatAreKnownToKeepThem(t *testing.T) {
	for kind, want := range map[int64]bool{
		unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true,
		unix.OVERLAYFS_SUPER_MAGIC: false, unix.FUSE_SUPER_MAGIC: false, unix.NFS_SUPER_MAGIC: false, 0: false,
	} {
		b := newBench(t, ModeVolume)
		b.store = typed{System{}, kind}
		if got := b.open().HasLastingOffsets(); got != want {
			t.Errorf("file system %#x: %v", kind, got)
		}
	}
	for release, want := range map[string]bool{
		"6.6.0": true, "6.18.5-cloud": true, "7.0": true, "6.5.13": false, "6.1.0-18-amd64": false, "5.15.0": false, "": false, "six": false,
	} {
		if got := tmpfsKeepsOffsets([]byte(release + "\x00")); got != want {
			t.Errorf("tmpfs of %q: %v", release, got)
		}
	}
}
