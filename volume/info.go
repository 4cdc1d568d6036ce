package volume

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Info is what can be said of a volume without opening it.
type Info struct {
	Path          string    `json:"path"` // real path of the backing directory
	ID            crypto.ID `json:"volume_id"`
	FormatVersion int       `json:"format_version"`
	Created       time.Time `json:"created"`
	Generation    uint64    `json:"generation"` // of volume.json
	KeyMode       KeyMode   `json:"key_mode"`
	Features      []string  `json:"features"`
	Keys          []KeyInfo `json:"keys"`
	// Authenticated: the volume key was at hand and vouches for the fields
	// above. Without it they are what volume.json claims, and anybody with
	// access to the backing store can have written that.
	Authenticated bool `json:"authenticated"`
	// Fingerprint is that of the volume key, in hex, as this host knows it; ""
	// if it does not. See WithHostState.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Sessions are the live mounts that have the volume open for writing.
	Sessions []SessionInfo `json:"sessions"`
}

// KeyInfo names a wrapping key.
type KeyInfo struct {
	Provider string `json:"provider"`
	KeyID    string `json:"key_id"`
	State    string `json:"state"` // "active" or "retiring"
}

// SessionInfo is a live mount, as it describes itself.
type SessionInfo struct {
	ID         crypto.ID `json:"id"`
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
	Generation uint64    `json:"generation"` // of volume.json that it goes by
	// Shared: others may have the volume open for writing, too.
	Shared bool `json:"shared,omitempty"`
}

// InUse is the error that Open gives while this session lives.
func (s SessionInfo) InUse() *InUseError { return sessionInfo(s).inUse() }

// ReadInfo reads volume.json and the sessions of the volume in dir. It needs no
// key and authenticates nothing. Errors are ErrNotVolume, ErrFormat,
// ErrIntegrity and those of the file system.
func ReadInfo(dir string) (Info, error) { return readInfo(dir, configName) }

// ReadPreviousInfo is ReadInfo for the previous version of volume.json, by which
// Fsck can open a volume whose present one is damaged.
func ReadPreviousInfo(dir string) (Info, error) { return readInfo(dir, configBackup) }

func readInfo(dir, config string) (Info, error) {
	fd, err := openBacking(dir)
	if err != nil {
		return Info{}, err
	}
	defer unix.Close(fd)
	c, err := readConfigBelow(patient{System{}}, fd, config)
	if err != nil {
		return Info{}, fmt.Errorf("read volume %s: %w", dir, err)
	}
	info, err := newInfo(dir, c)
	if err != nil {
		return Info{}, err
	}
	live, err := liveSessions(patient{System{}}, fd)
	if err != nil {
		return Info{}, fmt.Errorf("read volume %s: %w", dir, err)
	}
	for _, s := range live {
		info.Sessions = append(info.Sessions, SessionInfo(s))
	}
	return info, nil
}

// newInfo copies what the configuration says.
func newInfo(dir string, c *Config) (Info, error) {
	path, err := realPath(dir)
	if err != nil {
		return Info{}, err
	}
	info := Info{
		Path: path, ID: c.ID, FormatVersion: c.FormatVersion, Created: c.Created,
		Generation: c.Generation, KeyMode: c.KeyMode, Features: slices.Clone(c.Features), Sessions: []SessionInfo{},
	}
	for _, k := range c.Keys {
		info.Keys = append(info.Keys, KeyInfo{k.Provider, k.KeyID, k.State})
	}
	return info, nil
}

// WithHostState adds the fingerprint that this host remembers in stateDir, if it
// knows the volume.
func (i Info) WithHostState(stateDir string) (Info, error) {
	hosts, err := openHostStore(stateDir)
	if err != nil {
		return Info{}, err
	}
	h, err := hosts.load(i.ID)
	if err != nil {
		return Info{}, err
	}
	if h != nil {
		i.Fingerprint = h.Fingerprint
	}
	return i, nil
}
