package volume

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Info is what can be said of a volume without its key. None of it is
// authenticated: it is what volume.json claims.
type Info struct {
	Path          string    `json:"path"`
	ID            crypto.ID `json:"volume_id"`
	FormatVersion int       `json:"format_version"`
	Created       time.Time `json:"created"`
	Generation    uint64    `json:"generation"`
	KeyMode       KeyMode   `json:"key_mode"`
	Features      []string  `json:"features"`
	Keys          []KeyInfo `json:"keys"`
	// Mounts are those that have the volume open for writing, on this host.
	Mounts []MountInfo `json:"mounts"`
}

// KeyInfo names a wrapping key.
type KeyInfo struct {
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"`
	State    string `json:"state"`
}

// MountInfo is where a volume is mounted.
type MountInfo struct {
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
}

// ReadInfo reads volume.json and the sessions of the volume in dir.
func ReadInfo(dir string) (Info, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Info{}, fmt.Errorf("open backing directory %s: %w", dir, err)
	}
	defer unix.Close(fd)
	c, err := readConfig(System{}, fd)
	if err != nil {
		return Info{}, fmt.Errorf("read volume %s: %w", dir, err)
	}
	path, err := realPath(dir)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Path: path, ID: c.ID, FormatVersion: c.FormatVersion, Created: c.Created,
		Generation: c.Generation, KeyMode: c.KeyMode, Features: c.Features, Mounts: []MountInfo{},
	}
	for _, k := range c.Keys {
		info.Keys = append(info.Keys, KeyInfo{k.Provider, k.KeyID, k.State})
	}
	live, err := liveSessions(System{}, fd)
	if err != nil {
		return Info{}, err
	}
	for _, s := range live {
		info.Mounts = append(info.Mounts, MountInfo(s))
	}
	return info, nil
}
