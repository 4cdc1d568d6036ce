package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// place is where a subject lives: directories of its own, of which only backing
// lies on the file system that is measured.
type place struct {
	backing    string // what the subject keeps
	mountpoint string
	state      string // what else it needs to be mounted again: keys, host state
}

// newPlace makes empty directories.
func newPlace(backing, stage, name string) (p place, err error) {
	p = place{
		backing:    filepath.Join(backing, name),
		mountpoint: filepath.Join(stage, name, "mnt"),
		state:      filepath.Join(stage, name, "state"),
	}
	for _, dir := range []string{p.backing, p.mountpoint, p.state} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return p, fmt.Errorf("make place for %s: %w", name, err)
		}
	}
	return p, nil
}

func (p place) remove() error {
	if err := os.RemoveAll(p.backing); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(p.mountpoint))
}

// writeRandom makes a file that cannot be compressed.
func writeRandom(path string, size int64) error {
	f, err := os.Create(path)
	if err == nil {
		_, err = io.CopyN(f, rand.NewChaCha8([32]byte{}), size)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("make input: %w", err)
	}
	return nil
}

// memory is where tmpfs is mounted on every Linux.
const memory = "/dev/shm"

// workDir makes a directory in parent; on tmpfs if that is "".
func workDir(parent string) (string, error) {
	if parent == "" {
		if kind, err := fileSystem(memory); err != nil || kind != "tmpfs" {
			return "", fmt.Errorf("%s is no tmpfs (%s, %v): name a directory with -backing", memory, kind, err)
		}
		parent = memory
	}
	return os.MkdirTemp(parent, "kmsfs-bench.")
}

// fileSystem is the kind of the file system at path.
func fileSystem(path string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "", fmt.Errorf("look at file system of %s: %w", path, err)
	}
	switch st.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs", nil
	case unix.EXT4_SUPER_MAGIC:
		return "ext4", nil
	case unix.XFS_SUPER_MAGIC:
		return "xfs", nil
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs", nil
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay", nil
	}
	return fmt.Sprintf("0x%x", st.Type), nil
}

// dropCaches makes the kernel forget what it has read from disks. What lies on
// tmpfs is not on any. It needs root.
func dropCaches(backing string) error {
	if kind, err := fileSystem(backing); err != nil || kind == "tmpfs" {
		return err
	}
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("drop caches, which only root can: %w", err)
	}
	return nil
}
