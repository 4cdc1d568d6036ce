package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// InitOptions says what volume to make. Keys, Providers and StateDir are
// required.
type InitOptions struct {
	Keys      []kmsprovider.KeyURI // any one of them will open the volume
	Mode      KeyMode              // "" means ModeFile
	Providers *kmsprovider.Registry
	StateDir  string           // what this host remembers of volumes; see DefaultStateDir
	Random    io.Reader        // nil means crypto/rand
	Now       func() time.Time // nil means time.Now
	Log       *slog.Logger     // nil discards
}

// Init makes an empty volume in dir, which is made (with mode 0700) if it is
// missing. One that is not empty is ErrExists, one that holds a volume
// ErrIsVolume, and both are left as they are. On failure everything that Init
// made is removed again. The host knows the volume from then on.
func Init(ctx context.Context, dir string, o InitOptions) (Info, error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Mode == "" {
		o.Mode = ModeFile
	}
	info, err := initVolume(ctx, dir, &o)
	if err != nil {
		return Info{}, fmt.Errorf("make volume in %s: %w", dir, err)
	}
	o.Log.Info("volume made", "path", info.Path, "volume", info.ID, "fingerprint", info.Fingerprint)
	return info, nil
}

func initVolume(ctx context.Context, dir string, o *InitOptions) (Info, error) {
	if _, err := ParseKeyMode(string(o.Mode)); err != nil {
		return Info{}, err
	}
	hosts, err := openHostStore(o.StateDir)
	if err != nil {
		return Info{}, err
	}
	// What can be refused is refused before a key is asked for.
	if err := checkEmpty(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Info{}, err
	}
	id, err := crypto.NewID(o.Random)
	if err != nil {
		return Info{}, err
	}
	vk, keys, err := newVolumeKey(ctx, id, o.Keys, o.Providers)
	if err != nil {
		return Info{}, err
	}
	defer vk.Wipe()
	c := &Config{
		FormatVersion: formatVersion, ID: id, Created: o.Now().UTC().Truncate(time.Second), Generation: 1,
		KeyMode: o.Mode, Features: []string{}, Keys: keys,
	}
	b, err := c.marshal(vk)
	if err != nil {
		return Info{}, err
	}
	tree, err := makeTree(dir, b)
	if err != nil {
		return Info{}, err
	}
	defer tree.close()
	info, err := newInfo(dir, c)
	if err == nil {
		var h *HostState
		// Somebody asked for a new volume: whatever was at this path before, it is this one now.
		if h, _, err = hosts.admit(dir, id, crypto.Fingerprint(vk), c.keyIDs(), AdmitOptions{TrustNew: true, Generation: c.Generation}); err == nil {
			info.Authenticated, info.Fingerprint = true, h.Fingerprint
			return info, nil
		}
	}
	tree.remove()
	return Info{}, err
}

// checkEmpty returns ErrExists or ErrIsVolume if there is anything in dir, and
// os.ErrNotExist if there is no dir.
func checkEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return nil
	}
	_, err = os.Lstat(filepath.Join(dir, metaDir, configName))
	switch {
	case err == nil:
		return ErrIsVolume
	case errors.Is(err, os.ErrNotExist) && len(entries) == 1 && entries[0].Name() == metaDir:
		return fmt.Errorf("%s is there, without %s: remove it if an interrupted init left it: %w", metaDir, configName, ErrExists)
	}
	return fmt.Errorf("%q is there: %w", entries[0].Name(), ErrExists)
}

// newTree is a volume's directory while it is being made.
type newTree struct {
	dir      string
	root     int  // descriptor of dir, -1 until it is open
	meta     int  // descriptor of .kmsfs, -1 until it is open
	made     bool // dir was
	madeMeta bool // .kmsfs was
}

// metaDirs are the directories in .kmsfs.
func metaDirs() []string { return []string{"keys", sessionsDir, "redo", "links", "lost+found"} }

// makeTree makes dir if it is missing, and .kmsfs in it; volume.json comes last
// and makes it a volume. All of it is durable.
func makeTree(dir string, config []byte) (_ *newTree, err error) {
	t := &newTree{dir: dir, root: -1, meta: -1}
	defer func() {
		if err != nil {
			t.remove()
			t.close()
		}
	}()
	if err := os.Mkdir(dir, 0o700); err == nil {
		t.made = true
	} else if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := checkEmpty(dir); err != nil {
		return nil, err
	}
	if t.root, err = openBacking(dir); err != nil {
		return nil, err
	}
	k := patient{System{}}
	// Two that make a volume here at the same time differ in this.
	if err := k.Mkdirat(t.root, metaDir, 0o700); err == unix.EEXIST {
		return nil, ErrIsVolume
	} else if err != nil {
		return nil, fmt.Errorf("make %s: %w", metaDir, err)
	}
	t.madeMeta = true
	if t.meta, err = openMeta(k, t.root); err != nil {
		return nil, err
	}
	for _, name := range metaDirs() {
		if err := k.Mkdirat(t.meta, name, 0o700); err != nil {
			return nil, fmt.Errorf("make %s/%s: %w", metaDir, name, err)
		}
	}
	if err := writeConfig(k, t.meta, nil, config); err != nil {
		return nil, err
	}
	if err := k.Fsync(t.root); err != nil {
		return nil, fmt.Errorf("sync backing directory: %w", err)
	}
	if t.made {
		if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
			return nil, fmt.Errorf("sync parent of backing directory: %w", err)
		}
	}
	return t, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// remove takes away what was made, and nothing else.
func (t *newTree) remove() {
	k := patient{System{}}
	if t.meta >= 0 {
		_ = k.Unlinkat(t.meta, configName, 0)
		for _, name := range metaDirs() {
			_ = k.Unlinkat(t.meta, name, unix.AT_REMOVEDIR)
		}
	}
	if t.madeMeta {
		_ = k.Unlinkat(t.root, metaDir, unix.AT_REMOVEDIR)
	}
	if t.made {
		_ = os.Remove(t.dir)
	}
}

func (t *newTree) close() {
	for _, fd := range []int{t.meta, t.root} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}
