package volume

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// FsckOptions says what to check, and whether to repair it.
type FsckOptions struct {
	// Repair mends what can be mended, and sets aside what nobody can read. It never
	// takes away what can be read.
	Repair bool
	// Paths are plaintext paths below the volume's root; none means the whole volume,
	// with everything that is below no path.
	Paths []string
	// Grace is how long a key has to be here before a repair removes it because no
	// file has it: in a copy that a sync tool is making, its file may be on its way.
	Grace time.Duration
	// Jobs is how many files are decrypted at a time; 0 means as many as there are processors.
	Jobs int
	// Progress, if set, is told how much of the work is done: bytes of plaintext, and
	// fileWork for each file.
	Progress func(done, total int64)
}

// FsckReport is what Fsck found.
type FsckReport struct {
	Volume      crypto.ID `json:"volume_id"`
	Findings    []Finding `json:"findings"`
	Directories int       `json:"directories"` // checked, as those below
	Files       int       `json:"files"`       // each once, whatever names it has
	Symlinks    int       `json:"symlinks"`
	Others      int       `json:"others"` // FIFOs, sockets, devices
	Blocks      int64     `json:"blocks"` // decrypted
	Bytes       int64     `json:"bytes"`  // of plaintext in the files
	Sidecars    int       `json:"sidecars"`
	Whole       bool      `json:"whole"`     // not only some paths
	Complete    bool      `json:"complete"`  // everything could be looked at
	Errors      int       `json:"errors"`    // findings that are not harmless
	Remaining   int       `json:"remaining"` // errors that were not repaired
	Seconds     float64   `json:"seconds"`
}

// Fsck checks the volume in dir, which no mount may have open for writing, and
// reports what is not as it should be. With Repair it also finishes what a killed
// mount left half-done, as the next mount would. It can be stopped at any moment,
// and called again.
//
// Errors are those of Open, of a KMS that cannot be reached, and of ctx; what is
// wrong with the volume itself is in the report, which is there unless the
// volume could not be opened.
func Fsck(ctx context.Context, dir string, o Options, f FsckOptions) (report *FsckReport, err error) {
	start := time.Now()
	o.ReadOnly = !f.Repair
	v, first, err := openForFsck(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	c := newFsck(v, f)
	// Before it, only this goroutine has the volume.
	v.checking = true
	c.findings = append(c.findings, first...)
	err = c.run(ctx)
	if f.Repair && err == nil && c.wholly() {
		v.settled.Store(true)
	}
	if cerr := v.Close(); err == nil {
		err = cerr
	}
	r := c.finish()
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

// fsck is a check under way.
type fsck struct {
	vol     *Volume
	options FsckOptions
	live    bool // the volume is in use: only seals are settled
	torn    bool // a power cut may have torn writes
	keys    keyStage
	slots   chan struct{} // as many as files may be decrypted at a time

	mu        sync.Mutex
	report    FsckReport
	findings  []*Finding
	files     map[crypto.ID][]*fsckEntry // that say so in their header; each inode once
	dirs      map[crypto.ID][]*fsckEntry // that say so in their record, likewise
	links     map[string]bool            // targets in .kmsfs/links that symlinks lead to
	sidecars  []crypto.ID                // that there were in the beginning
	misplaced []*fsckEntry               // files and directories that belong under another name
	moved     []*Node                    // while the volume is in use
	nameless  []*fsckEntry
	held      map[*Node]error // directories that get no new ID, and why
	lost      []*fsckEntry    // files whose record does not open with the ID in their header
	blind     bool            // something could not be looked at, so what seems unused may not be
	refused   bool            // some key could not be had
	doubtful  bool            // some file may not be the one that its header says, since nothing proves it
	done      int64
	total     int64
}

func newFsck(v *Volume, o FsckOptions) *fsck {
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = runtime.GOMAXPROCS(0)
	}
	c := &fsck{
		vol: v, options: o, torn: v.relaxed, slots: make(chan struct{}, jobs),
		files: make(map[crypto.ID][]*fsckEntry), dirs: make(map[crypto.ID][]*fsckEntry), links: make(map[string]bool),
		held: make(map[*Node]error),
	}
	c.keys.init()
	c.report = FsckReport{Volume: v.id, Whole: len(o.Paths) == 0}
	return c
}

// run checks, and repairs as it goes. What depends on all the rest comes last.
func (c *fsck) run(ctx context.Context) error {
	tops, err := c.tops()
	if err != nil {
		return err
	}
	if c.options.Repair {
		unlock, err := c.vol.lockSidecars()
		if err != nil {
			return err
		}
		defer unlock()
	}
	if c.options.Progress != nil {
		for _, t := range tops {
			c.count(ctx, t)
		}
	}
	if c.report.Whole && !c.live {
		c.checkConfigBackup()
		// Those that are made from now on have users.
		if c.sidecars, err = c.vol.sidecars.list(false); err != nil {
			return err
		}
		c.report.Sidecars = len(c.sidecars)
	}
	if err := c.walk(ctx, tops); err != nil {
		return err
	}
	if err := c.settleLost(ctx); err != nil {
		return err
	}
	if err := c.settlePlaces(ctx); err != nil {
		return err
	}
	if c.report.Whole && !c.live {
		if err := c.checkStores(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Complete = !c.blind && !c.refused
	return nil
}

// tops finds what was asked for.
func (c *fsck) tops() ([]*fsckEntry, error) {
	r := reencrypt{vol: c.vol, options: ReencryptOptions{Paths: c.options.Paths}}
	if len(c.options.Paths) == 0 {
		return []*fsckEntry{{node: c.vol.root}}, nil
	}
	var out []*fsckEntry
	for _, path := range r.options.Paths {
		e := &fsckEntry{node: c.vol.root}
		for name := range strings.SplitSeq(path, "/") {
			if name == "" || name == "." {
				continue
			}
			next, err := e.node.fsckEntry(name)
			if err != nil {
				return nil, notFound(path, err)
			}
			e = next
		}
		out = append(out, e)
	}
	return out, nil
}

// walk looks at everything at and below the tops: directories and names in this
// goroutine, files in others.
func (c *fsck) walk(ctx context.Context, tops []*fsckEntry) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(keysAtOnce)
	w := fsckWalk{fsck: c, group: group}
	var err error
	for _, t := range tops {
		if err = w.entry(gctx, t); err != nil {
			break
		}
	}
	if gerr := group.Wait(); gerr != nil {
		return gerr // what ended the walk, if it did not end by itself
	}
	return err
}

// wholly tells whether every seal was compared with what it seals.
func (c *fsck) wholly() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.report.Complete && c.report.Whole
}

// finish sorts the findings and counts them.
func (c *fsck) finish() *FsckReport {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.SortStableFunc(c.findings, func(a, b *Finding) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Backing, b.Backing), cmp.Compare(a.Block, b.Block))
	})
	r := c.report
	r.Findings = make([]Finding, len(c.findings))
	for i, f := range c.findings {
		r.Findings[i] = *f
		if f.Harmless {
			continue
		}
		r.Errors++
		if !f.Repaired {
			r.Remaining++
		}
	}
	return &r
}

// lockSidecars keeps rewraps out. They end with the descriptor, however the
// process ends.
func (v *Volume) lockSidecars() (unlock func(), err error) {
	err = retry(func() error { return unix.Flock(v.sidecars.dir, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return nil, ErrRewrapRuns
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = unix.Flock(v.sidecars.dir, unix.LOCK_UN) }, nil
}

// gone tells that something was removed while the volume is in use.
func (c *fsck) gone(err error) bool { return c.live && errors.Is(err, unix.ENOENT) }
