package snapshot

import (
	"context"
	"errors"
	"fmt"
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

// VerifyOptions of a Verify. Place is required.
type VerifyOptions struct {
	Place string // what this host calls the copy: the bucket's URL
	State uint64 // generation of the state; 0 for the newest
	// Full reads all, here and in the bucket, and not only what the store vouches for.
	Full     bool
	Jobs     int                     // objects at a time; 0 for some
	Progress func(done, total int64) // objects
	Log      *slog.Logger            // nil discards
}

// Kinds of a Problem.
const (
	ProblemManifest   = "manifest"    // it is another, or was changed
	ProblemRollback   = "rolled back" // an older version is in the place of a newer one
	ProblemMissing    = "missing"
	ProblemTruncated  = "truncated" // shorter or longer
	ProblemSwapped    = "swapped"   // what belongs to another
	ProblemChanged    = "changed"
	ProblemUnreadable = "unreadable" // by an error of the bucket or the backing store
)

// Problem is something that is not what the manifest says.
type Problem struct {
	Kind string `json:"kind"`
	// Key is that of an object in the bucket, Name a name below BACKING; one of them.
	Key  string `json:"key,omitempty"`
	Name string `json:"name,omitempty"`
	// Paths are the first files in the volume that are concerned.
	Paths  []string `json:"paths,omitempty"`
	Detail string   `json:"detail"`
}

// Kinds of a Difference.
const (
	DifferenceNew        = "new"        // here, and not in the state
	DifferenceDeleted    = "deleted"    // in the state, and not here
	DifferenceChanged    = "changed"    // a later content
	DifferenceReplaced   = "replaced"   // something else
	DifferenceAttributes = "attributes" // mode, owner, time or extended attributes
)

// Difference is what was changed in the volume since the state. Nobody can tell who
// did it.
type Difference struct {
	Kind string `json:"kind"`
	Path string `json:"path"` // in the volume
}

// maxDifferences is how many are told.
const maxDifferences = 1000

// VerifyReport is what a Verify found.
type VerifyReport struct {
	Volume     crypto.ID `json:"volume_id"`
	Generation uint64    `json:"generation"` // of the state, 0 if there was none to look at
	Newest     uint64    `json:"newest"`
	Created    time.Time `json:"created"`
	Objects    int64     `json:"objects"` // in the bucket, and looked at
	// Unproven of them have the right length, but the store did not vouch for what is
	// in them.
	Unproven    int64          `json:"objects_unproven"`
	Files       int64          `json:"files"` // here, and looked at
	Problems    []Problem      `json:"problems"`
	Differences []Difference   `json:"differences"` // the first of them
	Counts      map[string]int `json:"difference_counts"`
	Seconds     float64        `json:"seconds"`
}

// verify is a Verify under way.
type verify struct {
	root   int
	access *volume.Access
	bucket bucket.Bucket
	o      VerifyOptions
	d      *decoder

	mu     sync.Mutex
	wrong  []wrongObject
	done   int64
	report VerifyReport
}

// Verify compares the volume in the backing directory dir, which may be mounted, and
// its copy in b with a state of that. What it finds is in the report, and makes it
// ErrDamaged; other errors are those of Push.
func Verify(ctx context.Context, dir string, a *volume.Access, b bucket.Bucket, o VerifyOptions) (report VerifyReport, err error) {
	began := time.Now()
	v := &verify{access: a, bucket: b, o: o}
	v.report = VerifyReport{Volume: a.ID(), Problems: []Problem{}, Differences: []Difference{}, Counts: map[string]int{}}
	if v.o.Jobs == 0 {
		v.o.Jobs = 8 * runtime.GOMAXPROCS(0)
	}
	if v.o.Log == nil {
		v.o.Log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		v.report.Seconds = time.Since(began).Seconds()
		report = v.report
	}()
	if v.root, err = unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return v.report, fmt.Errorf("open backing directory %s: %w", dir, err)
	}
	defer unix.Close(v.root)
	if err := v.run(ctx); err != nil {
		return v.report, err
	}
	if n := len(v.report.Problems); n > 0 {
		return v.report, fmt.Errorf("%d problems found: %w", n, ErrDamaged)
	}
	return v.report, nil
}

func (v *verify) problem(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verify) run(ctx context.Context) error {
	if err := v.config(ctx); err != nil {
		return err
	}
	f, err := v.manifest(ctx)
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	if err := v.objects(ctx, f); err != nil {
		return err
	}
	return v.local(ctx, f)
}

// config looks at the copy's volume.json.
func (v *verify) config(ctx context.Context) error {
	b, err := getSmall(ctx, v.bucket, configKey, maxConfig)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		v.problem(Problem{Kind: ProblemMissing, Key: configKey, Detail: "without it the copy cannot be opened elsewhere"})
	case errors.Is(err, ErrDamaged):
		v.problem(Problem{Kind: ProblemChanged, Key: configKey, Detail: err.Error()})
	case err != nil:
		return err
	default:
		if id, err := volume.ConfigID(b); err == nil && id != v.access.ID() {
			return fmt.Errorf("%s is a copy of volume %s, not of %s: %w", v.o.Place, id, v.access.ID(), ErrOtherVolume)
		}
		if _, err := v.access.CheckConfig(b); err != nil {
			v.problem(Problem{Kind: ProblemChanged, Key: configKey, Detail: err.Error()})
		}
	}
	return nil
}

// manifest gets the state's manifest from the bucket, or nil if there is none that
// says anything.
func (v *verify) manifest(ctx context.Context) (*os.File, error) {
	whole, _, err := states(ctx, v.bucket)
	if err != nil {
		return nil, err
	}
	seen, err := v.access.ManifestSeen(v.o.Place)
	if err != nil {
		return nil, err
	}
	if len(whole) > 0 {
		v.report.Newest = whole[len(whole)-1]
	}
	if v.report.Newest < seen {
		v.problem(Problem{
			Kind: ProblemRollback, Key: manifestKey(seen),
			Detail: fmt.Sprintf("the newest state is %d, and this host has seen %d", v.report.Newest, seen),
		})
	}
	state := v.o.State
	if state == 0 {
		state = v.report.Newest
	}
	if state == 0 {
		if seen > 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("there is none in %s yet: %w", v.o.Place, ErrNoState)
	}
	f, d, err := fetchManifest(ctx, v.access, v.bucket, state)
	if errors.Is(err, ErrManifest) || errors.Is(err, volume.ErrIntegrity) {
		v.problem(Problem{Kind: ProblemManifest, Key: manifestKey(state), Detail: err.Error()})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v.d = d
	v.report.Generation, v.report.Created = d.Generation, time.Unix(d.Created, 0).UTC()
	h := &host{access: v.access}
	if h.load(v.o.Place); h.Generation == state {
		if last, _ := h.last(); last != nil {
			defer last.Close()
			if mine, err := checkManifest(v.access, last, state); err == nil && mine.Digest != d.Digest {
				v.problem(Problem{Kind: ProblemManifest, Key: manifestKey(state), Detail: "it is another one than this host pushed or pulled, by somebody who has the volume key"})
			}
		}
	}
	return f, nil
}
