package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	configName   = "volume.json"
	configBackup = "volume.json.bak" // the previous version
)

// readConfig reads .kmsfs/volume.json below the backing directory open as root.
func readConfig(k Backing, root int) (*Config, error) {
	meta, err := k.Openat(root, metaDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP {
		return nil, ErrNotVolume
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", metaDir, err)
	}
	defer k.Close(meta)
	b, err := readSmall(k, meta, configName, maxConfig)
	switch {
	case err == unix.ENOENT:
		return nil, ErrNotVolume
	case err == unix.ELOOP:
		return nil, malformedConfig("it is a symbolic link")
	case errors.Is(err, errTooLong):
		return nil, malformedConfig(err.Error())
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", configName, err)
	}
	return parseConfig(b)
}

// writeConfig replaces volume.json, in the directory open as meta, so that
// there is an old or a new one at every moment. The old one is kept.
func writeConfig(k Backing, meta int, b []byte) error {
	if old, err := readSmall(k, meta, configName, maxConfig); err == nil {
		if err := replaceFile(k, meta, configBackup, old); err != nil {
			return fmt.Errorf("keep the previous %s: %w", configName, err)
		}
	}
	if err := replaceFile(k, meta, configName, b); err != nil {
		return fmt.Errorf("write %s: %w", configName, err)
	}
	return nil
}

// replaceFile writes a file durably: temporary, fsync, rename, fsync directory.
func replaceFile(k Backing, dir int, name string, b []byte) error {
	tmp := name + ".tmp"
	if err := k.Unlinkat(dir, tmp, 0); err != nil && err != unix.ENOENT {
		return err
	}
	if err := writeNew(k, dir, tmp, 0o600, b); err != nil {
		return err
	}
	fd, err := k.Openat(dir, tmp, unix.O_RDONLY, 0)
	if err == nil {
		err = k.Fsync(fd)
		k.Close(fd)
	}
	if err == nil {
		err = k.Renameat2(dir, tmp, dir, name, 0)
	}
	if err != nil {
		_ = k.Unlinkat(dir, tmp, 0)
		return err
	}
	return k.Fsync(dir)
}
