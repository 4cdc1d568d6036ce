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

// InitOptions says what volume to make. Keys and Providers are required.
type InitOptions struct {
	Keys      []kmsprovider.KeyURI // any one of them will open the volume
	Mode      KeyMode              // "" means ModeFile
	Providers *kmsprovider.Registry
	StateDir  string
	Random    io.Reader        // nil means crypto/rand
	Now       func() time.Time // nil means time.Now
	Log       *slog.Logger
}

// Init makes an empty volume in dir, which is made if it is missing and must be
// empty. On failure everything is as it was.
func Init(ctx context.Context, dir string, o InitOptions) (_ Info, err error) {
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Mode == "" {
		o.Mode = ModeFile
	}
	made, err := makeEmptyDir(dir)
	if err != nil {
		return Info{}, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(filepath.Join(dir, metaDir))
			if made {
				_ = os.Remove(dir)
			}
		}
	}()
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
	if err := writeTree(dir, b); err != nil {
		return Info{}, fmt.Errorf("make volume in %s: %w", dir, err)
	}
	hosts := hostStore{dir: o.StateDir}
	if _, err := hosts.admit(dir, c, crypto.Fingerprint(vk), admission{trustNew: true}); err != nil {
		return Info{}, err
	}
	return ReadInfo(dir)
}

// makeEmptyDir makes dir if need be, and makes sure that nothing is in it.
func makeEmptyDir(dir string) (made bool, err error) {
	if err := os.Mkdir(dir, 0o700); err == nil {
		return true, nil
	} else if !errors.Is(err, os.ErrExist) {
		return false, fmt.Errorf("make backing directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("read backing directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == metaDir {
			return false, fmt.Errorf("make volume in %s: it holds one already: %w", dir, ErrExists)
		}
	}
	if len(entries) > 0 {
		return false, fmt.Errorf("make volume in %s: %w", dir, ErrExists)
	}
	return false, nil
}

// writeTree makes .kmsfs; volume.json comes last and makes it a volume.
func writeTree(dir string, config []byte) error {
	meta := filepath.Join(dir, metaDir)
	for _, sub := range []string{"", "keys", "sessions", "redo", "links", "lost+found"} {
		if err := os.Mkdir(filepath.Join(meta, sub), 0o700); err != nil {
			return err
		}
	}
	fd, err := unix.Open(meta, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeConfig(System{}, fd, config)
}
