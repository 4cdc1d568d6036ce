package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kmsfs/crypto"
)

// Access is the keys of a volume for who copies its backing directory: it opens
// records and names, and no contents. Safe for concurrent use until Close.
type Access struct {
	v        *Volume
	own      bool // Close releases v
	manifest *crypto.ManifestCipher
}

// OpenAccess unwraps the volume key of the volume in dir, which may be mounted:
// nothing of it keeps others from writing. Errors are those of Open.
func OpenAccess(ctx context.Context, dir string, o Options) (*Access, error) {
	v, err := openKeys(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	return newAccess(v, true), nil
}

// OpenAccessTo does so for a volume that is to be in dir, and of which there is
// nothing but this volume.json. dir exists; the host knows the volume there from
// then on. Errors are those of Open.
func OpenAccessTo(ctx context.Context, dir string, config []byte, o Options) (*Access, error) {
	c, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	v, err := prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	v.config.Store(c)
	v.id, v.mode = c.ID, c.KeyMode
	if err = v.unlock(ctx); err == nil {
		err = v.admit(dir, o)
	}
	if err != nil {
		v.abort()
		return nil, err
	}
	return newAccess(v, true), nil
}

// Access is that of an open volume, and ends with it. The volume must not be
// locked meanwhile.
func (v *Volume) Access() *Access { return newAccess(v, false) }

func newAccess(v *Volume, own bool) *Access {
	return &Access{v: v, own: own, manifest: crypto.NewManifestCipher(v.vk, v.id)}
}

// Close wipes the keys.
func (a *Access) Close() {
	a.manifest.Wipe()
	if a.own {
		a.v.release()
	}
}

// ID is the volume's ID.
func (a *Access) ID() crypto.ID { return a.v.id }

// Config is volume.json as it was read, and its generation.
func (a *Access) Config() ([]byte, uint64) {
	c := a.v.conf()
	return c.bytes(), c.Generation
}

// CheckConfig authenticates a volume.json that somebody else kept, and returns
// its generation. ErrIntegrity, also where it is another volume's.
func (a *Access) CheckConfig(b []byte) (generation uint64, err error) {
	c, err := parseConfig(b)
	if err != nil {
		return 0, err
	}
	if err := c.authenticate(a.v.vk); err != nil {
		return 0, err
	}
	if c.ID != a.v.id {
		return 0, fmt.Errorf("%s is of volume %s, not of %s: %w", configName, c.ID, a.v.id, ErrIntegrity)
	}
	return c.Generation, nil
}

// Manifests seals and opens the manifests of copies.
func (a *Access) Manifests() *crypto.ManifestCipher { return a.manifest }

// Record authenticates the header of a data file, 144 bytes.
func (a *Access) Record(header []byte) (crypto.ID, crypto.Record, error) {
	id, err := crypto.HeaderFileID(header)
	if err != nil {
		return id, crypto.Record{}, err
	}
	c := crypto.NewRecordCipher(a.v.vk, a.v.id, id)
	defer c.Wipe()
	r, err := c.Open(header)
	return id, r, err
}

// DirRecord authenticates a directory's record.
func (a *Access) DirRecord(b []byte) (crypto.DirRecord, error) { return a.v.dirs.Open(b) }

// RootID is the ID of the root directory.
func (a *Access) RootID() crypto.ID { return a.v.rootID }

// Binding is what a record says that is at this name of a directory.
func (a *Access) Binding(dir crypto.ID, name string) [16]byte { return a.v.binder.Binding(dir, name) }

// DecryptName gives the plaintext of a whole encrypted name of a directory.
func (a *Access) DecryptName(dir crypto.ID, enc string) (string, error) {
	return a.v.names.Decrypt(dir, enc)
}

// EncryptName is its inverse.
func (a *Access) EncryptName(dir crypto.ID, name string) (string, error) {
	return a.v.names.Encrypt(dir, name)
}

// ManifestSeen is the generation of the newest manifest that this host has seen
// at a place, 0 if none.
func (a *Access) ManifestSeen(place string) (uint64, error) {
	h, err := a.v.hosts.load(a.v.id)
	if err != nil || h == nil {
		return 0, err
	}
	return h.Manifests[place], nil
}

// SeeManifest notes that this host has seen a manifest of that generation there.
func (a *Access) SeeManifest(place string, generation uint64) error {
	_, err := a.v.hosts.update(a.v.id, func(h *HostState) {
		if h.Manifests == nil {
			h.Manifests = make(map[string]uint64)
		}
		h.Manifests[place] = max(h.Manifests[place], generation)
		h.Manifest = max(h.Manifest, generation)
	})
	return err
}

// StateFile names a file that this host keeps beside what it remembers of the
// volume. Its directory exists.
func (a *Access) StateFile(suffix string) string {
	return strings.TrimSuffix(a.v.hosts.file(a.v.id), ".json") + "." + suffix
}

// Claim is a session without a mount.
type Claim struct {
	s *session
}

// ClaimNew keeps mounts out of a directory in which a volume is being made from a
// copy: .kmsfs is there, volume.json need not be. Changes that a killed mount left
// unfinished there are given up. If somebody has it open it is an InUseError.
func ClaimNew(dir string) (*Claim, error) {
	fd, err := openBacking(dir)
	if err != nil {
		return nil, err
	}
	k := patient{System{}}
	defer k.Close(fd)
	id, err := crypto.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname()
	s, err := beginSession(k, fd, sessionInfo{ID: id, Host: host, PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		return nil, err
	}
	s.removeStale()
	redo := filepath.Join(dir, metaDir, "redo")
	old, err := os.ReadDir(redo)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range old {
		if rerr := os.Remove(filepath.Join(redo, e.Name())); rerr != nil {
			err = errors.Join(err, fmt.Errorf("remove old redo slots: %w", rerr))
		}
	}
	if err != nil {
		s.end()
		return nil, err
	}
	return &Claim{s}, nil
}

// Release gives the volume free.
func (c *Claim) Release() { c.s.end() }

// ConfigID is the ID of the volume that a volume.json says it is of. Nothing is
// authenticated.
func ConfigID(config []byte) (crypto.ID, error) {
	c, err := parseConfig(config)
	if err != nil {
		return crypto.ID{}, err
	}
	return c.ID, nil
}

// ConfigKeys are the wrapping keys that a volume.json names. Nothing is
// authenticated.
func ConfigKeys(config []byte) ([]KeyInfo, error) {
	c, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	var out []KeyInfo
	for _, k := range c.Keys {
		out = append(out, KeyInfo{k.Provider, k.KeyID, k.State})
	}
	return out, nil
}
