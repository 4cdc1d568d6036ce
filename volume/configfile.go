package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	configName   = "volume.json"
	configBackup = "volume.json.bak" // the previous version
)

// openBacking opens a backing directory. The path to it may have symbolic
// links; nothing below it may. A missing one is ErrNotVolume.
func openBacking(dir string) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	switch err {
	case nil:
		return fd, nil
	case unix.ENOENT, unix.ENOTDIR:
		return -1, fmt.Errorf("open backing directory %s: %w: %w", dir, err, ErrNotVolume)
	}
	return -1, fmt.Errorf("open backing directory %s: %w", dir, err)
}

// openMeta opens .kmsfs below the backing directory open as root, for listing
// and fsync too. It is ErrNotVolume if there is none, ErrIntegrity if it is a
// symbolic link.
func openMeta(k Backing, root int) (fd int, err error) {
	fd, err = k.Openat(root, metaDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	switch err {
	case nil:
		return fd, nil
	case unix.ENOENT:
		return -1, fmt.Errorf("%s is missing: %w", metaDir, ErrNotVolume)
	case unix.ENOTDIR, unix.ELOOP:
		var st unix.Statx_t
		if k.Statx(root, metaDir, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return -1, fmt.Errorf("%s is a symbolic link: %w", metaDir, ErrIntegrity)
		}
		return -1, fmt.Errorf("%s is not a directory: %w", metaDir, ErrNotVolume)
	}
	return -1, fmt.Errorf("open %s: %w", metaDir, err)
}

// readConfig reads .kmsfs/volume.json below the backing directory open as root.
// Errors are ErrNotVolume, ErrFormat, ErrIntegrity and those of the file system.
func readConfig(k Backing, root int) (*Config, error) { return readConfigBelow(k, root, configName) }

// readConfigBelow is readConfig, or with configBackup reads its previous version.
func readConfigBelow(k Backing, root int, name string) (*Config, error) {
	meta, err := openMeta(k, root)
	if err != nil {
		return nil, err
	}
	defer k.Close(meta)
	return readConfigNamed(k, meta, name)
}

// readConfigIn reads volume.json with .kmsfs open as meta.
func readConfigIn(k Backing, meta int) (*Config, error) { return readConfigNamed(k, meta, configName) }

// readConfigNamed is readConfigBelow with .kmsfs open as meta.
func readConfigNamed(k Backing, meta int, name string) (*Config, error) {
	b, err := readSmall(k, meta, name, maxConfig)
	switch {
	case err == nil:
		return parseConfig(b)
	case err == unix.ENOENT:
		return nil, fmt.Errorf("%s/%s is missing: %w", metaDir, name, ErrNotVolume)
	case errors.Is(err, errNotPlain):
		return nil, malformedConfig("it is " + err.Error())
	case errors.Is(err, errTooLong):
		return nil, malformedConfig(err.Error())
	}
	return nil, fmt.Errorf("read %s: %w", name, err)
}

var errConfigChanged = errors.New("somebody else changed it meanwhile")

// writeConfig puts b in the place of volume.json, in .kmsfs open as meta, and
// keeps the previous version: at every moment there is the old one or the new
// one, in full. old is what the caller read and changed, nil where there was
// none; if something else is there now, nothing is written.
func writeConfig(k Backing, meta int, old *Config, b []byte) error {
	// One at a time compares and writes.
	if err := retry(func() error { return unix.Flock(meta, unix.LOCK_EX) }); err != nil {
		return fmt.Errorf("lock %s: %w", metaDir, err)
	}
	defer func() { _ = unix.Flock(meta, unix.LOCK_UN) }()
	now, err := readSmall(k, meta, configName, maxConfig)
	switch {
	case err == unix.ENOENT && old == nil:
		return replaceConfig(k, meta, configName, b)
	case err != nil && err != unix.ENOENT:
		return fmt.Errorf("read %s: %w", configName, err)
	case err != nil || old == nil || !bytes.Equal(now, old.bytes()):
		return fmt.Errorf("write %s: %w", configName, errConfigChanged)
	}
	if err := replaceConfig(k, meta, configBackup, now); err != nil {
		return err
	}
	return replaceConfig(k, meta, configName, b)
}

func replaceConfig(k Backing, meta int, name string, b []byte) error {
	if err := replaceFile(k, meta, name, b); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// replaceFile writes a file of mode 0600 durably: temporary, fsync, rename,
// fsync directory. The caller makes sure that nobody else does so at the same
// time. A symbolic link in its place is replaced, never followed.
func replaceFile(k Backing, dir int, name string, b []byte) error {
	if err := writeTemporary(k, dir, name, b); err != nil {
		return err
	}
	if err := k.Renameat2(dir, name+tmpSuffix, dir, name, 0); err != nil {
		_ = k.Unlinkat(dir, name+tmpSuffix, 0)
		return err
	}
	return k.Fsync(dir)
}

// tmpSuffix ends the names of temporaries that replace a file of .kmsfs.
const tmpSuffix = ".tmp"

// writeTemporary writes what is to take name's place, in a temporary of mode 0600
// beside it, and makes the content durable. It belongs to the owner of name, or
// of the directory: root may change the volume of somebody else.
func writeTemporary(k Backing, dir int, name string, b []byte) error {
	tmp := name + tmpSuffix // what a crash left of it is removed first
	if err := k.Unlinkat(dir, tmp, 0); err != nil && err != unix.ENOENT {
		return err
	}
	fd, err := k.Openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = pwriteFull(k, fd, b, 0)
	if err == nil {
		err = keepOwner(k, dir, name, fd)
	}
	if err == nil {
		err = k.Fsync(fd)
	}
	if cerr := k.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		_ = k.Unlinkat(dir, tmp, 0)
	}
	return err
}

// keepOwner gives the file open as fd to the owner of name, if root asks.
func keepOwner(k Backing, dir int, name string, fd int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Statx_t
	err := k.Statx(dir, name, &st)
	if err == unix.ENOENT {
		err = k.Statx(dir, "", &st)
	}
	if err != nil || int(st.Uid) == 0 && int(st.Gid) == os.Getegid() {
		return err
	}
	return k.Fchownat(fd, "", int(st.Uid), int(st.Gid))
}
