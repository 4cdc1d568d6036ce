package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// PushOptions of a Push. Place is required.
type PushOptions struct {
	// Place is what this host calls the copy: the bucket's URL.
	Place string
	// Live is the mount that has the volume open for writing; nil where nobody has,
	// and nobody can until the push is done.
	Live Live
	// Keep is how many states are kept; 0 for all.
	Keep int
	// AllowRollback goes on from a copy that is older than one that this host has seen.
	AllowRollback bool
	// Jobs is how many files are sent at a time; 0 for some.
	Jobs int
	// Progress, if set, is told how many bytes are sent, one call at a time.
	Progress func(done int64)
	Log      *slog.Logger     // nil discards
	Random   io.Reader        // nil means crypto/rand
	Now      func() time.Time // nil means time.Now
}

// Live is a mount that goes on while its volume is copied. Inodes are those of the
// backing directory (volume.InodeOf).
type Live interface {
	// Flush brings all that programs were told is written into the backing files.
	Flush(ctx context.Context) error
	// Settle returns when no change of a file is under way that had begun before.
	Settle(ctx context.Context, ino, generation uint64) error
	// Hold keeps a file as it is until release, or for a while.
	Hold(ctx context.Context, ino, generation uint64) (release func(), err error)
	// HoldNames keeps all names as they are until release, which is an error where
	// the mount could not wait so long.
	HoldNames(ctx context.Context) (release func() error, err error)
}

// PushReport is what a Push did.
type PushReport struct {
	Volume     crypto.ID `json:"volume_id"`
	Generation uint64    `json:"generation"` // of the newest state now
	Changed    bool      `json:"changed"`    // this push made it
	Files      uint64    `json:"files"`      // that it has, and so on
	Dirs       uint64    `json:"directories"`
	Others     uint64    `json:"others"`
	Bytes      uint64    `json:"bytes"` // of its data files, as they are stored
	// Sent are the objects that this push sent, the manifest included.
	Sent          int64    `json:"objects_sent"`
	SentBytes     int64    `json:"bytes_sent"`
	FoundAgain    int64    `json:"objects_found_again"` // those that an interrupted push had sent
	Removed       int64    `json:"objects_removed"`
	StatesRemoved []uint64 `json:"states_removed"`
	Unread        []Unread `json:"unread"`
	Seconds       float64  `json:"seconds"`
}

// Unread is something that could not be copied.
type Unread struct {
	Name  string `json:"name"` // below BACKING
	Error string `json:"error"`
}

// push is a Push under way.
type push struct {
	dir    string
	root   int // the backing directory
	keys   int // .kmsfs/keys and so on; -1 if it is not there
	links  int
	access *volume.Access
	bucket bucket.Bucket
	o      PushOptions
	host   *host

	id       crypto.ID
	sent     map[string]int64 // what was there when this push began, by key
	used     map[string]bool  // of that
	base     Head
	known    known
	mu       sync.Mutex
	fresh    map[contentID]*File // sent by this push
	byInode  map[inodeID]*sentFile
	failures []Unread
	report   PushReport
}

type inodeID struct{ dev, ino uint64 }

// sentFile is what this push sent last of an inode.
type sentFile struct {
	file   *File
	record crypto.Record
}

// pushRounds is how often a push begins again because another one was committed.
const pushRounds = 5

// Push brings the copy in b to what is in the backing directory dir. What is sent
// is not seen before the last object, a manifest, is there. It can end anywhere,
// and called again it goes on. Errors are those of the bucket and of the backing
// store, ErrRollback, ErrOtherVolume, ErrBusy, ErrLost, and ErrUnread, with what is
// in the report; then there is no new state.
func Push(ctx context.Context, dir string, a *volume.Access, b bucket.Bucket, o PushOptions) (report PushReport, err error) {
	began := time.Now()
	p := &push{dir: dir, access: a, bucket: b, o: o, root: -1, keys: -1, links: -1, fresh: make(map[contentID]*File), byInode: make(map[inodeID]*sentFile)}
	p.report = PushReport{Volume: a.ID(), StatesRemoved: []uint64{}, Unread: []Unread{}}
	if p.o.Jobs == 0 {
		p.o.Jobs = 4 * runtime.GOMAXPROCS(0)
	}
	if p.o.Log == nil {
		p.o.Log = slog.New(slog.DiscardHandler)
	}
	if p.o.Random == nil {
		p.o.Random = rand.Reader
	}
	if p.o.Now == nil {
		p.o.Now = time.Now
	}
	defer func() {
		p.report.Seconds = time.Since(began).Seconds()
		report = p.report
	}()
	if err := p.open(); err != nil {
		return p.report, err
	}
	defer p.close()
	return p.report, p.run(ctx)
}

func (p *push) open() (err error) {
	if p.host, err = openHost(p.access, p.o.Place); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.root, err = unix.Open(p.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open backing directory %s: %w", p.dir, err)
	}
	meta, err := openat(p.root, metaDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", metaDir, err)
	}
	defer unix.Close(meta)
	for name, fd := range map[string]*int{keysDir: &p.keys, linksDir: &p.links} {
		*fd, err = openat(meta, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("open %s/%s: %w", metaDir, name, err)
		}
	}
	return nil
}

func (p *push) close() {
	for _, fd := range []int{p.root, p.keys, p.links} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	p.host.close()
}

func (p *push) run(ctx context.Context) error {
	if err := p.checkConfig(ctx); err != nil {
		return err
	}
	if err := p.begin(ctx); err != nil {
		return err
	}
	defer p.markOn(ctx)()
	if p.o.Live != nil {
		if err := p.o.Live.Flush(ctx); err != nil {
			return err
		}
	}
	for range pushRounds {
		if err := p.loadBase(ctx); err != nil {
			return err
		}
		if err := p.send(ctx); err != nil {
			return err
		}
		f, totals, err := p.describe(ctx)
		if err != nil {
			return err
		}
		err = p.commit(ctx, f, totals)
		f.Close()
		if !errors.Is(err, bucket.ErrPrecondition) {
			if err != nil {
				return err
			}
			return p.finish(ctx)
		}
		p.o.Log.Info("another push was committed meanwhile; this one goes out from it", "generation", p.base.Generation+1)
	}
	return ErrLost
}

// begin finds out whether this is a push of before that goes on, and says in the
// bucket that it is under way.
func (p *push) begin(ctx context.Context) (err error) {
	h := p.host
	if h.Committing != 0 && !h.Push.IsZero() {
		// It may have been committed, and then its objects are a state's.
		p.o.Log.Debug("the push before may have come to its end", "push", h.Push)
		if err := p.settleCommitted(ctx); err != nil {
			return err
		}
	}
	if !h.Push.IsZero() {
		if info, err := p.bucket.Head(ctx, pushKey(h.Push)); err == nil && info.Size > 0 {
			h.Push = crypto.ID{} // what it sent is being removed
		} else if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return err
		}
	}
	p.sent, p.used = make(map[string]int64), make(map[string]bool)
	if h.Push.IsZero() {
		if h.Push, err = crypto.NewID(p.o.Random); err != nil {
			return err
		}
		h.Committing = 0
		if err := h.save(); err != nil {
			return err
		}
	} else {
		for info, err := range p.bucket.List(ctx, objectsOf(h.Push)) {
			if err != nil {
				return err
			}
			p.sent[info.Key] = info.Size
		}
	}
	p.id = h.Push
	return p.mark(ctx)
}

// mark says that this push is under way.
func (p *push) mark(ctx context.Context) error {
	_, err := p.bucket.Put(ctx, pushKey(p.id), emptyReader{}, 0, bucket.PutOptions{})
	return err
}

// markOn does so again and again, until stop is called.
func (p *push) markOn(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		t := time.NewTicker(markEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if info, err := p.bucket.Head(ctx, pushKey(p.id)); err == nil && info.Size == 0 {
				_ = p.mark(ctx) // should that fail for a week, commit sees it
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

type emptyReader struct{}

func (emptyReader) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// checkConfig makes sure that the copy is of this volume, and that its volume.json
// opens what is going to be there.
func (p *push) checkConfig(ctx context.Context) error {
	mine, generation := p.access.Config()
	theirs, err := getSmall(ctx, p.bucket, configKey, maxConfig)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
	case err != nil:
		return err
	case string(theirs) == string(mine):
		return nil
	default:
		if id, err := volume.ConfigID(theirs); err == nil && id != p.access.ID() {
			return fmt.Errorf("%s is a copy of volume %s, not of %s: %w", p.o.Place, id, p.access.ID(), ErrOtherVolume)
		}
		if g, err := p.access.CheckConfig(theirs); err == nil && g > generation {
			return nil
		}
	}
	return p.put(ctx, configKey, bytesAt(mine), int64(len(mine)), bucket.PutOptions{})
}

// put sends an object, and counts it.
func (p *push) put(ctx context.Context, key string, body io.ReaderAt, size int64, o bucket.PutOptions) error {
	_, err := p.putInfo(ctx, key, body, size, o)
	return err
}

func (p *push) putInfo(ctx context.Context, key string, body io.ReaderAt, size int64, o bucket.PutOptions) (bucket.Info, error) {
	info, err := p.bucket.Put(ctx, key, body, size, o)
	if err != nil {
		return info, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Sent++
	p.report.SentBytes += size
	if p.o.Progress != nil {
		p.o.Progress(p.report.SentBytes)
	}
	return info, nil
}

// unread notes that something could not be copied.
func (p *push) unread(name string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failures = append(p.failures, Unread{name, err.Error()})
}

// loadBase reads the newest state, from which this push goes out.
func (p *push) loadBase(ctx context.Context) (err error) {
	for range pushRounds {
		// While it is looked for, another push may replace and remove it.
		if err = p.tryBase(ctx); !errors.Is(err, ErrNoState) {
			return err
		}
	}
	return err
}

func (p *push) tryBase(ctx context.Context) error {
	whole, _, err := states(ctx, p.bucket)
	if err != nil {
		return err
	}
	p.base, p.known = Head{}, known{}
	newest := uint64(0)
	if len(whole) > 0 {
		newest = whole[len(whole)-1]
	}
	seen, err := p.access.ManifestSeen(p.o.Place)
	if err != nil {
		return err
	}
	if seen > newest && !p.o.AllowRollback {
		return fmt.Errorf("the newest state in %s is %d, and this host has seen %d there: %w", p.o.Place, newest, seen, ErrRollback)
	}
	if newest == 0 {
		return nil
	}
	f, d, err := openState(ctx, p.access, p.bucket, p.host, newest)
	if err != nil {
		return err
	}
	defer f.Close()
	p.base = d.Head
	p.known, err = learn(p.access, f, d)
	return err
}

// openState is fetchManifest, from this host if it has the same.
func openState(ctx context.Context, a *volume.Access, b bucket.Bucket, h *host, generation uint64) (*os.File, *decoder, error) {
	if h.Generation == generation {
		info, err := b.Head(ctx, manifestKey(generation))
		if errors.Is(err, bucket.ErrNotFound) {
			return nil, nil, fmt.Errorf("state %d: %w: %w", generation, ErrNoState, err)
		}
		if err != nil {
			return nil, nil, err
		}
		if f := h.manifest(generation, info); f != nil {
			if d, err := checkManifest(a, f, generation); err == nil {
				return f, d, nil
			}
			f.Close()
		}
	}
	return fetchManifest(ctx, a, b, generation)
}
