package volume

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// hostRecord is what this host remembers of a volume, where the backing store
// cannot forge it.
type hostRecord struct {
	ID          crypto.ID `json:"volume_id"`
	Path        string    `json:"path"`        // real path of the backing directory, when last opened
	Fingerprint string    `json:"fingerprint"` // of the volume key, hex
	KeyIDs      []string  `json:"key_ids"`
	// Manifest is the generation of the newest manifest seen.
	Manifest uint64 `json:"manifest"`
	// Boot and Session say who had the volume open for writing last, and Open
	// that it did not end cleanly, or still goes on.
	Boot    string    `json:"boot"`
	Session crypto.ID `json:"session"`
	Open    bool      `json:"open"`
}

// hostStore is the directory of host records.
type hostStore struct{ dir string }

// DefaultStateDir is where host records are kept: $XDG_STATE_HOME/kmsfs where
// that is set, /var/lib/kmsfs for root, else ~/.local/state/kmsfs.
func DefaultStateDir(getenv func(string) string, euid int, home string) string {
	switch x := getenv("XDG_STATE_HOME"); {
	case filepath.IsAbs(x):
		return filepath.Join(x, "kmsfs")
	case euid == 0:
		return "/var/lib/kmsfs"
	}
	return filepath.Join(home, ".local", "state", "kmsfs")
}

func (s hostStore) file(id crypto.ID) string { return filepath.Join(s.dir, id.String()+".json") }

// load returns the record of a volume, or nil if this host does not know it.
func (s hostStore) load(id crypto.ID) (*hostRecord, error) {
	b, err := os.ReadFile(s.file(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host state: %w", err)
	}
	r := new(hostRecord)
	if err := json.Unmarshal(b, r); err != nil || r.ID != id {
		return nil, fmt.Errorf("host state %s is damaged; remove it to trust the volume anew", s.file(id))
	}
	return r, nil
}

// save replaces the record durably.
func (s hostStore) save(r *hostRecord) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write host state: %w", err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("write host state: %w", err)
	}
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("write host state %s: %w", s.dir, err)
	}
	defer unix.Close(fd)
	if err := replaceFile(System{}, fd, filepath.Base(s.file(r.ID)), append(b, '\n')); err != nil {
		return fmt.Errorf("write host state %s: %w", s.file(r.ID), err)
	}
	return nil
}

// others returns the records of other volumes last seen at path.
func (s hostStore) others(path string, id crypto.ID) ([]*hostRecord, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host state: %w", err)
	}
	var out []*hostRecord
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		other, err := crypto.ParseID(name)
		if err != nil || other == id {
			continue
		}
		if r, err := s.load(other); err == nil && r != nil && r.Path == path {
			out = append(out, r)
		}
	}
	return out, nil
}

// admission is how strictly a volume is let in.
type admission struct {
	demand   string // fingerprint that it must have, hex; "" for none
	trustNew bool
}

// admit compares a volume with what the host knows and returns its record. An
// unknown one is accepted, and known from then on.
func (s hostStore) admit(dir string, c *Config, fingerprint [32]byte, a admission) (*hostRecord, error) {
	path, err := realPath(dir)
	if err != nil {
		return nil, err
	}
	print := hex.EncodeToString(fingerprint[:])
	if a.demand != "" && !strings.EqualFold(a.demand, print) {
		return nil, fmt.Errorf("volume in %s has fingerprint %s, not the %s that was asked for: %w",
			path, print, a.demand, ErrFingerprint)
	}
	others, err := s.others(path, c.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range others {
		if !a.trustNew {
			return nil, fmt.Errorf("another volume (%s) was in %s before; now it holds %s: %w",
				o.ID, path, c.ID, ErrFingerprint)
		}
		o.Path = ""
		if err := s.save(o); err != nil {
			return nil, err
		}
	}
	r, err := s.load(c.ID)
	if err != nil {
		return nil, err
	}
	if r != nil && r.Fingerprint != print && !a.trustNew {
		return nil, fmt.Errorf("volume in %s has fingerprint %s, this host knows it with %s: %w",
			path, print, r.Fingerprint, ErrFingerprint)
	}
	if r == nil {
		r = &hostRecord{ID: c.ID}
	}
	r.Path, r.Fingerprint, r.KeyIDs = path, print, nil
	for _, k := range c.Keys {
		r.KeyIDs = append(r.KeyIDs, k.KeyID)
	}
	return r, s.save(r)
}

// realPath is the absolute path without symbolic links.
func realPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("resolve backing directory: %w", err)
	}
	return abs, nil
}

// bootID tells one boot of this host from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
