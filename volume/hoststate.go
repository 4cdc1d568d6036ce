package volume

import (
	"bytes"
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

// HostState is what this host remembers of a volume, where the backing store
// cannot forge it.
type HostState struct {
	ID          crypto.ID `json:"volume_id"`
	Path        string    `json:"path"`        // real path of the backing directory when last opened; "" once another volume took it
	Fingerprint string    `json:"fingerprint"` // of the volume key, 64 hex digits
	KeyIDs      []string  `json:"key_ids"`
	Generation  uint64    `json:"generation"` // of the newest volume.json seen
	// Manifest is the generation of the newest manifest seen, anywhere; Manifests
	// that of each place where there is a copy.
	Manifest  uint64            `json:"manifest"`
	Manifests map[string]uint64 `json:"manifests,omitempty"`
	// Boot and Session say who had the volume open for writing last, and Open
	// that it did not end cleanly, or still goes on.
	Boot    string    `json:"boot"`
	Session crypto.ID `json:"session"`
	Open    bool      `json:"open"`
	// Unsettled: a boot ended with the volume open, and no check since has come to
	// its end.
	Unsettled bool `json:"unsettled"`
}

// ending is how the last session that wrote ended.
type ending int

const (
	endClean     ending = iota
	endKilled           // without a clean unmount, in this boot
	endPowerLoss        // without a clean unmount, in another boot
)

// lastEnd tells how Session ended, as seen in this boot. It means something only
// where no session is live.
func (h *HostState) lastEnd(boot string) ending {
	switch {
	case !h.Open:
		return endClean
	case h.Boot == boot:
		return endKilled
	}
	return endPowerLoss
}

// mayBeTorn tells whether a power cut may have reordered writes that no clean
// unmount has made good since. A session that was killed in a later boot settles
// nothing.
func (h *HostState) mayBeTorn(boot string) bool {
	return h.Unsettled || h.lastEnd(boot) == endPowerLoss
}

// hostStore is the directory of host states, <volume id>.json each. Whatever
// changes one does so under the directory's lock, since mounts of the same
// volume in several processes share it.
type hostStore struct{ dir string }

// maxHostState is longer than any host state, in bytes.
const maxHostState = 1 << 18

// openHostStore takes the directory's absolute path; it is made, with mode 0700,
// when the first state is saved.
func openHostStore(dir string) (*hostStore, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("open host state: directory %q is no absolute path", dir)
	}
	return &hostStore{dir: filepath.Clean(dir)}, nil
}

// DefaultStateDir is where host states are kept: $XDG_STATE_HOME/kmsfs where
// that is set to an absolute path, /var/lib/kmsfs for root, else
// ~/.local/state/kmsfs.
func DefaultStateDir(getenv func(string) string, euid int, home string) string {
	switch x := getenv("XDG_STATE_HOME"); {
	case filepath.IsAbs(x):
		return filepath.Join(x, "kmsfs")
	case euid == 0:
		return "/var/lib/kmsfs"
	}
	return filepath.Join(home, ".local", "state", "kmsfs")
}

func (s *hostStore) file(id crypto.ID) string { return filepath.Join(s.dir, id.String()+".json") }

// load returns what the host knows of a volume, or nil if it does not know it.
func (s *hostStore) load(id crypto.ID) (*HostState, error) {
	b, err := readSmall(patient{System{}}, unix.AT_FDCWD, s.file(id), maxHostState)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host state %s: %w", s.file(id), err)
	}
	h, ok := parseHostState(b)
	if !ok || h.ID != id {
		return nil, fmt.Errorf("host state %s is damaged; remove it to trust the volume as one never seen", s.file(id))
	}
	return h, nil
}

func parseHostState(b []byte) (*HostState, bool) {
	h := new(HostState)
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(h); err != nil || dec.More() || !isFingerprint(h.Fingerprint) {
		return nil, false
	}
	return h, true
}

func isFingerprint(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// write replaces a state durably; the caller is in locked, since before it loaded h.
func (s *hostStore) write(dirfd int, h *HostState) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err == nil {
		err = replaceFile(patient{System{}}, dirfd, filepath.Base(s.file(h.ID)), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write host state %s: %w", s.file(h.ID), err)
	}
	return nil
}

// locked makes the directory if need be and runs change while nobody else
// changes anything in it.
func (s *hostStore) locked(change func(dirfd int) error) error {
	if err := makeDurable(s.dir); err != nil {
		return fmt.Errorf("make host state directory: %w", err)
	}
	fd, err := unix.Open(s.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open host state directory %s: %w", s.dir, err)
	}
	defer unix.Close(fd) // and so unlocks
	if err := retry(func() error { return unix.Flock(fd, unix.LOCK_EX) }); err != nil {
		return fmt.Errorf("lock host state directory %s: %w", s.dir, err)
	}
	return change(fd)
}

// makeDurable makes a directory of mode 0700 and those above it that are missing.
// After a power cut they are there: with them the host would forget that there was
// one.
func makeDurable(dir string) error {
	var made []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		made = append(made, d)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range made {
		if err := syncDir(filepath.Dir(d)); err != nil {
			return err
		}
	}
	return nil
}

// update changes the state of a known volume and returns the new one. What
// change does not touch stays as others may have written it meanwhile.
func (s *hostStore) update(id crypto.ID, change func(*HostState)) (*HostState, error) {
	var h *HostState
	err := s.locked(func(dirfd int) (err error) {
		if h, err = s.load(id); err != nil {
			return err
		}
		if h == nil {
			return fmt.Errorf("host state %s is gone", s.file(id))
		}
		change(h)
		return s.write(dirfd, h)
	})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// begin notes, durably, that a session opens the volume for writing. Whatever
// the last one left must have been replayed before: its ID is forgotten. That it
// may have left torn writes is not.
func (s *hostStore) begin(id, session crypto.ID, boot string) (*HostState, error) {
	return s.update(id, func(h *HostState) {
		h.Unsettled = h.mayBeTorn(boot)
		h.Boot, h.Session, h.Open = boot, session, true
	})
}

// end notes that a session ended cleanly, with everything durable: every
// mismatch from then on is damage. It does nothing if another session has begun.
func (s *hostStore) end(id, session crypto.ID) error {
	return s.close(id, session, true)
}

// settle notes that a check has made good what a power cut may have torn, and that
// it is durable. The session goes on.
func (s *hostStore) settle(id, session crypto.ID) error {
	_, err := s.update(id, func(h *HostState) {
		if h.Session == session {
			h.Unsettled = false
		}
	})
	return err
}

// cancel notes that a session ended that settled nothing.
func (s *hostStore) cancel(id, session crypto.ID) error {
	return s.close(id, session, false)
}

func (s *hostStore) close(id, session crypto.ID, settled bool) error {
	_, err := s.update(id, func(h *HostState) {
		if h.Session == session {
			h.Open = false
			h.Unsettled = h.Unsettled && !settled
		}
	})
	return err
}

// others returns the states of other volumes last seen at path. A damaged one
// is passed over: it says nothing of any path.
func (s *hostStore) others(path string, id crypto.ID) ([]*HostState, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read host state: %w", err)
	}
	var out []*HostState
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		other, err := crypto.ParseID(name)
		if err != nil || other == id {
			continue
		}
		if h, err := s.load(other); err == nil && h != nil && h.Path == path {
			out = append(out, h)
		}
	}
	return out, nil
}

// bootID tells one boot of this host from another.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot ID: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
