package volume

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"kmsfs/crypto"
)

// AdmitOptions is how strictly a volume is let in.
type AdmitOptions struct {
	// Demand is the fingerprint that the volume must have, in hex; "" for none.
	Demand string
	// TrustNew accepts a changed fingerprint, another volume at a known path, or an
	// older configuration.
	TrustNew bool
	// Generation is that of the volume's configuration.
	Generation uint64
	// ReadOnly accepts an older configuration, which then makes no new keys: copies
	// from before a change of keys can be read.
	ReadOnly bool
}

// admit compares the volume in the backing directory dir, whose configuration
// the key with this fingerprint has authenticated, with what the host knows:
//
//	unknown volume, unknown path        accepted and kept (firstSeen)
//	known volume, same fingerprint      accepted; its path and key IDs are kept up to date
//	known volume, other fingerprint     ErrFingerprint, or with TrustNew known anew
//	known volume, older configuration   ErrOlder, or with TrustNew that is the newest; with ReadOnly accepted
//	path at which another volume was    ErrFingerprint, or with TrustNew that one loses its path
//	other fingerprint than demanded     ErrFingerprint
//
// It returns the state as it is then on disk. A refusal changes nothing.
func (s *hostStore) admit(dir string, id crypto.ID, fingerprint [32]byte, keyIDs []string, o AdmitOptions) (h *HostState, firstSeen bool, err error) {
	path, err := realPath(dir)
	if err != nil {
		return nil, false, err
	}
	print := hex.EncodeToString(fingerprint[:])
	if o.Demand != "" && !strings.EqualFold(o.Demand, print) {
		return nil, false, fmt.Errorf("volume in %s has fingerprint %s, not the demanded %s: %w", path, print, quoted(o.Demand), ErrFingerprint)
	}
	err = s.locked(func(dirfd int) (err error) {
		if h, err = s.load(id); err != nil {
			return err
		}
		if h != nil && h.Fingerprint != print && !o.TrustNew {
			return fmt.Errorf("volume in %s has fingerprint %s, this host knows it with %s: %w", path, print, h.Fingerprint, ErrFingerprint)
		}
		older := h != nil && h.Fingerprint == print && o.Generation < h.Generation && !o.TrustNew
		if older && !o.ReadOnly {
			return fmt.Errorf("%s in %s is of generation %d, this host has seen %d: %w", configName, path, o.Generation, h.Generation, ErrOlder)
		}
		others, err := s.others(path, id)
		if err != nil {
			return err
		}
		for _, other := range others {
			if !o.TrustNew {
				return fmt.Errorf("volume %s was in %s before, now %s is there: %w", other.ID, path, id, ErrFingerprint)
			}
			other.Path = ""
			if err := s.write(dirfd, other); err != nil {
				return err
			}
		}
		if firstSeen = h == nil || h.Fingerprint != print; firstSeen {
			// What is remembered of another key's sessions and manifests means nothing for this one.
			h = &HostState{ID: id, Fingerprint: print}
		} else if h.Path == path && h.Generation == o.Generation && slices.Equal(h.KeyIDs, keyIDs) {
			return nil
		}
		h.Path = path
		if !older {
			h.KeyIDs, h.Generation = slices.Clone(keyIDs), o.Generation
		}
		return s.write(dirfd, h)
	})
	if err != nil {
		return nil, false, err
	}
	return h, firstSeen, nil
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
