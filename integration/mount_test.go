package integration

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// mounted is a volume mounted by this process.
type mounted struct {
	t       testing.TB
	Backing string // backing directory
	Dir     string // mount point
	state   string

	readOnly  bool
	keyTTL    time.Duration
	backing   volume.Backing  // nil is the system's
	store     *local.Keystore // to do something to its keys
	keystore  string
	keys      *kmsprovider.Registry
	unwrapped atomic.Int64 // data keys of files
	Volume    *volume.Volume
	Mount     *fs.Mount
}

// newVolume makes a volume whose keys come from a keystore of its own.
func newVolume(t testing.TB, mode volume.KeyMode) *mounted {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no /dev/fuse here; a machine with the fuse module runs this: %v", err)
	}
	m := &mounted{t: t, Backing: filepath.Join(t.TempDir(), "backing"), Dir: t.TempDir(), state: t.TempDir()}
	keystore := local.Options{
		Path:       filepath.Join(t.TempDir(), "keystore.json"),
		Passphrase: func() ([]byte, error) { return []byte("correct horse"), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 64, Threads: 1},
	}
	store, err := local.Create(context.Background(), keystore)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	if _, err := store.EnsureDefaultKey(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.store, m.keystore = store, keystore.Path
	m.keys = kmsprovider.NewRegistry()
	m.keys.WrapWith(func(p kmsprovider.Provider) kmsprovider.Provider { return fileKeys{p, &m.unwrapped} })
	m.keys.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) {
		return local.Open(ctx, keystore) // another one than store, since a lock closes it
	})
	t.Cleanup(func() { m.keys.Close() })
	_, err = volume.Init(context.Background(), m.Backing, volume.InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}}, Mode: mode,
		Providers: m.keys, StateDir: m.state,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mount mounts the volume; it is unmounted when the test ends, however it ends.
func (m *mounted) mount(edit ...func(*fs.Options)) {
	m.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{m.t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	v, err := volume.Open(context.Background(), m.Backing, volume.Options{
		Providers: m.keys, StateDir: m.state, Mountpoint: m.Dir, Log: log, ReadOnly: m.readOnly, KeyTTL: m.keyTTL, Backing: m.backing,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	o := fs.Options{Mountpoint: m.Dir, FsName: m.Backing, Log: log}
	for _, e := range edit {
		e(&o)
	}
	srv, err := fs.Serve(v, o)
	if err != nil {
		v.Close()
		m.t.Fatal(err)
	}
	m.Volume, m.Mount = v, srv
	m.t.Cleanup(m.unmount)
}

// unmount ends the mount and closes the volume.
func (m *mounted) unmount() {
	if m.Mount == nil {
		return
	}
	srv, v := m.Mount, m.Volume
	m.Mount, m.Volume = nil, nil
	detached, err := srv.Unmount()
	if err != nil || detached {
		m.t.Errorf("unmount: detached %v, %v", detached, err)
		_ = unix.Unmount(m.Dir, unix.MNT_DETACH)
	}
	done := make(chan struct{})
	go func() { srv.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		m.t.Errorf("the mount is still served %v after it was unmounted", patience)
		return
	}
	if err := v.Close(); err != nil {
		m.t.Errorf("close: %v", err)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", p)
	return len(p), nil
}
