package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// PullOptions of a Pull. Place and Volume are required.
type PullOptions struct {
	Place  string         // what this host calls the copy: the bucket's URL
	Volume volume.Options // with which the volume is opened
	State  uint64         // generation of the state to restore; 0 for the newest
	Path   string         // in the volume, as a mount shows it: what alone is restored; "" for all
	// AllowRollback accepts a copy, or a configuration, that is older than one that
	// this host has seen.
	AllowRollback bool
	// Discard gives up files that are newer here than in the copy, or not in it.
	Discard bool
	// Full compares all of a file here before it is taken for what it should be, and
	// not its record alone.
	Full     bool
	Jobs     int                     // files at a time; 0 for some
	Progress func(done, total int64) // bytes
	Log      *slog.Logger            // nil discards
	Random   io.Reader               // nil means crypto/rand
}

// PullReport is what a Pull did.
type PullReport struct {
	Volume     crypto.ID `json:"volume_id"`
	Generation uint64    `json:"generation"`
	Newest     uint64    `json:"newest"` // state that the copy has
	Created    time.Time `json:"created"`
	Files      uint64    `json:"files"` // of the state, and so on
	Dirs       uint64    `json:"directories"`
	Others     uint64    `json:"others"`
	// Got are the objects that were fetched, but for the manifest.
	Got      int64   `json:"objects_received"`
	GotBytes int64   `json:"bytes_received"`
	Placed   int64   `json:"placed"`  // entries made or replaced
	Kept     int64   `json:"kept"`    // files that were there
	Removed  int64   `json:"removed"` // entries that the state does not have
	Seconds  float64 `json:"seconds"`
}

// pull is a Pull under way.
type pull struct {
	dir    string
	root   int
	meta   int
	asRoot bool
	bucket bucket.Bucket
	o      PullOptions
	access *volume.Access
	host   *host
	end    []func() error // in the order of their making

	manifest *os.File
	d        *decoder
	bundles  *bundleReader
	keepKeys bool // sidecars that are here stay
	ids      map[crypto.ID]struct{}
	links    map[crypto.ID]struct{}
	mu       sync.Mutex
	done     int64
	report   PullReport
}

// pullingName is a file in .kmsfs that says that a pull makes a volume here, and of
// which ID.
const pullingName = "pulling"

// Pull makes the backing directory dir what a state of the copy in b says, which
// must not be mounted. Nothing appears under its name that was not verified, and
// nothing that is not in the state stays. It can end anywhere, and called again it
// goes on. Errors are those of the bucket, of the volume and of the backing store,
// ErrDamaged, ErrManifest, ErrRollback, ErrNoState, ErrOtherVolume, ErrUnpushed and
// ErrBusy.
func Pull(ctx context.Context, b bucket.Bucket, dir string, o PullOptions) (report PullReport, err error) {
	began := time.Now()
	p := &pull{
		dir: dir, root: -1, meta: -1, asRoot: os.Geteuid() == 0, bucket: b, o: o,
		ids: make(map[crypto.ID]struct{}), links: make(map[crypto.ID]struct{}),
	}
	if p.o.Jobs == 0 {
		p.o.Jobs = 4 * runtime.GOMAXPROCS(0)
	}
	if p.o.Log == nil {
		p.o.Log = slog.New(slog.DiscardHandler)
	}
	if p.o.Random == nil {
		p.o.Random = rand.Reader
	}
	defer func() {
		for _, end := range slices.Backward(p.end) {
			if eerr := end(); err == nil {
				err = eerr
			}
		}
		p.report.Seconds = time.Since(began).Seconds()
		report = p.report
	}()
	if err := p.open(ctx); err != nil {
		return p.report, err
	}
	if err := p.choose(ctx); err != nil {
		return p.report, err
	}
	return p.report, p.run(ctx)
}

// ReadConfig gets the volume.json of a copy, by which its key is unwrapped. Nothing
// of it is authenticated. It is ErrNoState where there is no copy.
func ReadConfig(ctx context.Context, b bucket.Bucket) ([]byte, error) {
	config, err := getSmall(ctx, b, configKey, maxConfig)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, fmt.Errorf("there is no copy of a volume: %w: %w", ErrNoState, err)
	}
	return config, err
}

// open claims the backing directory, and unwraps the volume key.
func (p *pull) open(ctx context.Context) error {
	config, err := ReadConfig(ctx, p.bucket)
	if err != nil {
		return err
	}
	id, err := volume.ConfigID(config)
	if err != nil {
		return err
	}
	info, err := volume.ReadInfo(p.dir)
	switch {
	case err == nil && info.ID != id:
		return fmt.Errorf("in %s is volume %s, and %s is a copy of %s: %w", p.dir, info.ID, p.o.Place, id, ErrOtherVolume)
	case err == nil:
		err = p.openVolume(ctx)
	case errors.Is(err, volume.ErrNotVolume):
		err = p.openNew(ctx, id, config)
	}
	if err != nil {
		return err
	}
	p.report.Volume = id
	if p.host, err = openHost(p.access, p.o.Place); err != nil {
		return err
	}
	p.end = append(p.end, func() error { p.host.close(); return nil })
	if p.root, err = unix.Open(p.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	p.end = append(p.end, func() error { return unix.Close(p.root) })
	if p.meta, err = openat(p.root, metaDir, unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
		return fmt.Errorf("open %s: %w", metaDir, err)
	}
	p.end = append(p.end, func() error { return unix.Close(p.meta) })
	for _, name := range []string{keysDir, linksDir, sessions, "redo"} {
		if err := unix.Mkdirat(p.meta, name, 0o700); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make %s/%s: %w", metaDir, name, err)
		}
	}
	return nil
}

// openVolume opens the volume that is there for writing, as a mount does: it
// finishes what a killed one left, and keeps others out.
func (p *pull) openVolume(ctx context.Context) error {
	v, err := volume.Open(ctx, p.dir, p.o.Volume)
	if err != nil {
		return err
	}
	p.end = append(p.end, v.Close)
	p.access = v.Access()
	p.end = append(p.end, func() error { p.access.Close(); return nil })
	return nil
}

// openNew does so where there is no volume, or what an interrupted pull made of one.
func (p *pull) openNew(ctx context.Context, id crypto.ID, config []byte) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	mark := filepath.Join(p.dir, metaDir, pullingName)
	b, err := os.ReadFile(mark)
	if err != nil || string(b) != id.String() {
		entries, err := os.ReadDir(p.dir)
		if err != nil {
			return err
		}
		if len(entries) > 0 && !(len(entries) == 1 && entries[0].Name() == metaDir && isBare(filepath.Join(p.dir, metaDir))) {
			return fmt.Errorf("%s is not empty, and no volume: %w", p.dir, volume.ErrExists)
		}
	}
	if err := os.Mkdir(filepath.Join(p.dir, metaDir), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.WriteFile(mark, []byte(id.String()), 0o600); err != nil {
		return err
	}
	claim, err := volume.ClaimNew(p.dir)
	if err != nil {
		return err
	}
	p.end = append(p.end, func() error { claim.Release(); return nil })
	if p.access, err = volume.OpenAccessTo(ctx, p.dir, config, p.o.Volume); err != nil {
		return err
	}
	p.end = append(p.end, func() error { p.access.Close(); return nil })
	return nil
}

// isBare tells whether a .kmsfs is no more than what openNew makes before its mark.
func isBare(meta string) bool {
	entries, err := os.ReadDir(meta)
	return err == nil && (len(entries) == 0 || len(entries) == 1 && entries[0].Name() == pullingName)
}

// choose finds the state, and reads its manifest.
func (p *pull) choose(ctx context.Context) error {
	var err error
	if p.manifest, p.d, p.report.Newest, err = chooseState(ctx, p.access, p.bucket, p.host, p.o.Place, p.o.State, p.o.AllowRollback); err != nil {
		return err
	}
	p.end = append(p.end, p.manifest.Close)
	d := p.d
	p.report.Generation, p.report.Created = d.Generation, time.Unix(d.Created, 0).UTC()
	p.report.Files, p.report.Dirs, p.report.Others = d.Files, d.Directories, d.Others+d.Links
	p.bundles = &bundleReader{pull: p, table: d.Bundles}
	_, here := p.access.Config()
	there, err := p.access.CheckConfig(d.Config)
	if err != nil {
		return err
	}
	p.keepKeys = p.o.Path != "" && there < here
	if there < here && p.o.Path == "" && !p.o.AllowRollback {
		return fmt.Errorf("state %d has %s of generation %d, and that in %s is of %d, so its keys may have been given up since: %w",
			d.Generation, configKey, there, p.dir, here, ErrRollback)
	}
	return nil
}

// chooseState reads the manifest of a state, of the newest with 0, to its end. The
// caller closes the file.
func chooseState(ctx context.Context, a *volume.Access, b bucket.Bucket, h *host, place string, state uint64, allow bool) (*os.File, *decoder, uint64, error) {
	whole, _, err := states(ctx, b)
	if err != nil {
		return nil, nil, 0, err
	}
	seen, err := a.ManifestSeen(place)
	if err != nil {
		return nil, nil, 0, err
	}
	newest := uint64(0)
	if len(whole) > 0 {
		newest = whole[len(whole)-1]
	}
	switch {
	case newest < seen && !allow:
		return nil, nil, newest, fmt.Errorf("the newest state in %s is %d, and this host has seen %d there: %w", place, newest, seen, ErrRollback)
	case newest == 0:
		return nil, nil, 0, fmt.Errorf("there is none in %s yet: %w", place, ErrNoState)
	case state == 0:
		state = newest
	case !slices.Contains(whole, state):
		return nil, nil, newest, fmt.Errorf("state %d is not in %s, which has %s: %w", state, place, rangeOf(whole), ErrNoState)
	}
	f, d, err := openState(ctx, a, b, h, state)
	return f, d, newest, err
}

func rangeOf(whole []uint64) string {
	if len(whole) == 1 {
		return fmt.Sprint(whole[0])
	}
	return fmt.Sprintf("%d to %d", whole[0], whole[len(whole)-1])
}

func (p *pull) run(ctx context.Context) error {
	if !p.o.Discard {
		if err := p.checkUnpushed(ctx); err != nil {
			return err
		}
	}
	if err := p.restore(ctx); err != nil {
		return err
	}
	if err := p.trim(ctx); err != nil {
		return err
	}
	if err := again(func() error { return unix.Syncfs(p.root) }); err != nil {
		return fmt.Errorf("sync %s: %w", p.dir, err)
	}
	if err := p.placeConfig(); err != nil {
		return err
	}
	if p.o.Path == "" {
		if err := p.trimKeys(); err != nil {
			return err
		}
	}
	if err := unix.Unlinkat(p.meta, pullingName, 0); err != nil && err != unix.ENOENT {
		return err
	}
	if err := again(func() error { return unix.Syncfs(p.root) }); err != nil {
		return fmt.Errorf("sync %s: %w", p.dir, err)
	}
	if err := p.access.SeeManifest(p.o.Place, p.report.Newest); err != nil {
		return err
	}
	if p.o.Path != "" || p.host.Generation == p.d.Generation {
		return nil
	}
	info, err := p.bucket.Head(ctx, manifestKey(p.d.Generation))
	if err != nil {
		return err
	}
	return p.host.keep(p.manifest, p.d.Generation, info)
}
