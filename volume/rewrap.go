package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// RewrapOptions says which wrapping keys a volume is to have from now on.
// Providers and StateDir are required.
type RewrapOptions struct {
	// From is a key to give up, To one to take; zero for none. With neither, a
	// Rewrap that was interrupted is finished, and everything is proven again.
	From, To kmsprovider.KeyURI
	// Offline allows a To that cannot be opened here, as a recovery key whose
	// other half lies in a safe: what it wraps is not proven.
	Offline   bool
	Providers *kmsprovider.Registry
	StateDir  string
	// Rate is how many calls to a KMS there are in a second at most; 0 for no limit.
	Rate float64
	// FollowWithin is how long live mounts have to follow the new configuration; 0
	// means a minute.
	FollowWithin time.Duration
	// KMSDeadline is how long one call to a KMS may take; 0 means 30 s.
	KMSDeadline time.Duration
	// Progress, if set, is told how far the sidecars are: one call at a time.
	Progress func(done, total int)

	Log     *slog.Logger // nil discards
	Random  io.Reader    // nil means crypto/rand
	Backing Backing      // nil means System
}

// RewrapReport is what Rewrap did and what it can vouch for. After an error it
// is as far as it got.
type RewrapReport struct {
	Volume     crypto.ID `json:"volume_id"`
	KeyMode    KeyMode   `json:"key_mode"`
	Generation uint64    `json:"generation"` // of volume.json, at the end
	Keys       []KeyInfo `json:"keys"`       // likewise
	Added      []string  `json:"added"`      // key IDs
	Removed    []string  `json:"removed"`
	// Opened are the active keys with which the volume key, and in key mode file
	// each proven data key, was opened; Unopened those that cannot be used here.
	Opened   []string `json:"opened"`
	Unopened []string `json:"unopened"`
	// Sidecars are those that there were in the last pass. Proven of them name
	// exactly the active keys, and were opened as they are on the backing store
	// with each key of Opened; their commitment fits.
	Sidecars  int              `json:"sidecars"`
	Proven    int              `json:"proven"`
	Rewritten int              `json:"rewritten"`
	Passes    int              `json:"passes"`
	Damaged   []DamagedSidecar `json:"damaged"`
	KMSCalls  map[string]int64 `json:"kms_calls"` // by operation
	Seconds   float64          `json:"seconds"`
	// Complete: no key is retiring any more, and every sidecar is proven.
	Complete bool `json:"complete"`
}

// DamagedSidecar is one that no key of the volume opens as it should.
type DamagedSidecar struct {
	Name  string `json:"name"` // below BACKING
	Error string `json:"error"`
}

// ErrMountBehind: a live mount does not follow the new configuration, so it may
// still make data keys for the old keys alone.
var ErrMountBehind = errors.New("a mount does not follow the new keys")

// ErrRewrapRuns: another Rewrap of the volume is under way.
var ErrRewrapRuns = errors.New("the volume is being rewrapped already")

// Rewrap changes the wrapping keys of the volume in dir, which may be mounted.
// Data files are not touched, nor are the keys in them. Its stages:
//
//  1. The keys of volume.json get their new states: To becomes active, From
//     retiring. Nothing is changed before To has wrapped and opened a key.
//  2. Every live mount follows that configuration.
//  3. Each sidecar is replaced by one that names exactly the active keys, until
//     a pass over all of them finds nothing to do (key mode volume: none is).
//  4. Keys that are retiring are taken out of volume.json, unless a sidecar is
//     damaged.
//
// It can be killed at any point and started again: what there is to do stands in
// volume.json and in the sidecars. Errors are those of Open, of the KMS and of
// the backing store, and ErrIntegrity where sidecars are damaged.
func Rewrap(ctx context.Context, dir string, o RewrapOptions) (report RewrapReport, err error) {
	start := time.Now()
	r := &rewrap{dir: dir, options: o, meter: newMeter(o.Rate, o.KMSDeadline), proven: make(map[crypto.ID][32]byte)}
	defer func() {
		r.close()
		r.report.Seconds = time.Since(start).Seconds()
		r.report.KMSCalls = r.meter.counts()
		report = r.report
	}()
	r.report = RewrapReport{
		Added: []string{}, Removed: []string{}, Opened: []string{}, Unopened: []string{}, Damaged: []DamagedSidecar{},
	}
	if err := r.open(ctx); err != nil {
		return r.report, err
	}
	return r.report, r.run(ctx)
}

// rewrap is a Rewrap under way.
type rewrap struct {
	dir     string
	options RewrapOptions
	vol     *Volume // open for its keys alone
	meter   *meter
	usable  map[wrapperID]bool // active keys that open what they wrapped
	proven  map[crypto.ID][32]byte
	report  RewrapReport
}

// wrapperID names a wrapping key.
type wrapperID struct{ provider, keyID string }

func (k *ConfigKey) id() wrapperID { return wrapperID{k.Provider, k.KeyID} }

// open unlocks the volume, which somebody else may have mounted, and keeps other
// rewraps out.
func (r *rewrap) open(ctx context.Context) (err error) {
	vo := Options{
		Providers: r.options.Providers.Wrapped(r.meter.wrap), StateDir: r.options.StateDir,
		KMSDeadline: r.options.KMSDeadline, Log: r.options.Log, Random: r.options.Random, Backing: r.options.Backing,
	}
	if r.vol, err = openKeys(ctx, r.dir, vo); err != nil {
		return err
	}
	// Gone with the descriptor, however the process ends.
	err = retry(func() error { return unix.Flock(r.vol.sidecars.dir, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return ErrRewrapRuns
	}
	if err != nil {
		return fmt.Errorf("lock %s/keys: %w", metaDir, err)
	}
	r.vol.followConfig() // another one may have ended since it was read
	r.describe()
	return nil
}

func (r *rewrap) close() {
	if r.vol != nil {
		r.vol.release()
	}
}

// describe puts the configuration into the report.
func (r *rewrap) describe() {
	c := r.vol.conf()
	r.report.Volume, r.report.KeyMode, r.report.Generation = c.ID, c.KeyMode, c.Generation
	r.report.Keys = nil
	for _, k := range c.Keys {
		r.report.Keys = append(r.report.Keys, KeyInfo{k.Provider, k.KeyID, k.State})
	}
}

func (r *rewrap) run(ctx context.Context) error {
	if err := r.changeKeys(ctx); err != nil {
		return err
	}
	if err := r.awaitMounts(ctx); err != nil {
		return err
	}
	if err := r.convergeAll(ctx); err != nil {
		return err
	}
	if n := len(r.report.Damaged); n > 0 {
		return fmt.Errorf("%d of %d sidecars are damaged, and no key is given up: %w", n, r.report.Sidecars, ErrIntegrity)
	}
	// A rewrap that was killed may have replaced sidecars without making their
	// names durable, and this run found nothing to do with them.
	if err := r.vol.syncAll(); err != nil {
		return err
	}
	if err := r.dropRetiring(); err != nil {
		return err
	}
	r.report.Complete = true
	return nil
}

// awaitMounts waits until every live mount goes by the configuration, so that
// none makes data keys that the active keys do not wrap.
func (r *rewrap) awaitMounts(ctx context.Context) error {
	within := r.options.FollowWithin
	if within == 0 {
		within = time.Minute
	}
	deadline := time.Now().Add(within)
	generation := r.vol.conf().Generation
	for {
		behind, err := r.mountsBehind(generation)
		if err != nil || len(behind) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			b := behind[0]
			return fmt.Errorf("%w: that at %q (process %d on host %q) still goes by generation %d of %s, not by %d, after %v",
				ErrMountBehind, b.Mountpoint, b.PID, b.Host, b.Generation, configName, generation, within)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// mountsBehind lists the live mounts that go by an older configuration.
func (r *rewrap) mountsBehind(generation uint64) (behind []sessionInfo, err error) {
	live, err := liveSessions(r.vol.backing, r.vol.rootDesc.fd)
	for _, s := range live {
		if s.Generation < generation {
			behind = append(behind, s)
		}
	}
	return behind, err
}
