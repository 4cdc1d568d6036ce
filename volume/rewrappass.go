package volume

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// rewrapConcurrency is how many sidecars are worked on at once: enough to hide
// the KMS's latency and to let fsyncs share a commit of the journal.
const rewrapConcurrency = 16

// convergeAll goes over all sidecars until a pass finds none to replace. That one
// proves the rest: every sidecar that it saw names exactly the active keys, and
// was opened, byte for byte as it is, in this run. What live mounts make
// meanwhile names the active keys from the start. A sidecar that cannot be parsed may
// be one that such a mount has made and is about to write: another pass tells, a while
// later. Should that not have been enough, no key is given up, and nothing is lost.
func (r *rewrap) convergeAll(ctx context.Context) error {
	var unparsed []crypto.ID // by the last pass
	for {
		ids, err := r.vol.sidecars.list(true)
		if err != nil {
			return err
		}
		p := &rewrapPass{rewrap: r, total: len(ids), damaged: []DamagedSidecar{}}
		if r.vol.mode == ModeFile {
			err = p.run(ctx, ids)
		} else {
			p.seen = len(ids) // the volume key wraps what is in them
		}
		r.report.Passes++
		r.report.Sidecars, r.report.Proven, r.report.Damaged = p.seen, p.proven, p.damaged
		r.report.Rewritten += p.rewritten
		if err != nil {
			return fmt.Errorf("rewrap, after %d of %d sidecars: %w", p.done, p.total, err)
		}
		if p.rewritten == 0 && !slices.ContainsFunc(p.unparsed, func(id crypto.ID) bool { return !slices.Contains(unparsed, id) }) {
			return nil
		}
		if unparsed = p.unparsed; len(unparsed) > 0 {
			select {
			case <-time.After(writingTime):
			case <-ctx.Done():
			}
		}
	}
}

// writingTime is far more than there is between making a sidecar and writing it.
const writingTime = 100 * time.Millisecond

// rewrapPass is one look at all sidecars.
type rewrapPass struct {
	*rewrap
	total int

	mu        sync.Mutex
	done      int // looked at, or gone
	seen      int // that were there
	proven    int
	rewritten int
	damaged   []DamagedSidecar
	unparsed  []crypto.ID // of those
	shelves   [256]bool   // whose names are not durable
}

func (p *rewrapPass) run(ctx context.Context, ids []crypto.ID) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(rewrapConcurrency)
	for _, id := range ids {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error { return p.look(gctx, id) })
	}
	err := group.Wait()
	slices.SortFunc(p.damaged, func(a, b DamagedSidecar) int { return strings.Compare(a.Name, b.Name) })
	for first, changed := range p.shelves {
		if !changed {
			continue
		}
		if serr := p.vol.sidecars.syncShelf(crypto.ID{byte(first)}); err == nil && serr != nil {
			err = fmt.Errorf("sync sidecars: %w", serr)
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// outcome is what became of one sidecar in a pass.
type outcome struct {
	gone, rewritten bool
	sum             [32]byte // of its bytes, if it is proven
	damage          error
}

// look brings one sidecar to what it is to be, unless this run has seen it so.
func (p *rewrapPass) look(ctx context.Context, id crypto.ID) error {
	o, err := p.converge(ctx, id)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	switch {
	case o.gone:
		delete(p.rewrap.proven, id)
	case o.damage != nil:
		p.seen++
		if errors.Is(o.damage, crypto.ErrMalformed) {
			p.unparsed = append(p.unparsed, id)
		}
		p.damaged = append(p.damaged, DamagedSidecar{Name: sidecarPath(id), Error: o.damage.Error()})
	default:
		p.seen++
		p.proven++
		p.rewrap.proven[id] = o.sum
	}
	if o.rewritten {
		p.rewritten++
		p.shelves[id[0]] = true
	}
	if f := p.options.Progress; f != nil {
		f(p.done, p.total)
	}
	return nil
}

// converge reads a sidecar, opens it, and replaces it if it does not name exactly
// the active keys. Its damage is an outcome; errors are of the KMS or the backing
// store and end the run.
func (p *rewrapPass) converge(ctx context.Context, id crypto.ID) (outcome, error) {
	store := p.vol.sidecars
	sc, err := store.read(p.vol.id, id)
	if errors.Is(err, errSidecarMissing) {
		return outcome{gone: true}, nil // with its file
	}
	if err != nil {
		return damageOr(err)
	}
	sum, err := sidecarSum(sc)
	if err != nil {
		return outcome{}, err
	}
	p.mu.Lock()
	known, ok := p.rewrap.proven[id]
	p.mu.Unlock()
	if ok && known == sum {
		return outcome{sum: sum}, nil
	}
	next, err := p.rewrapEntries(ctx, sc)
	if err != nil {
		return damageOr(err)
	}
	o := outcome{sum: sum}
	if next == nil {
		return o, nil
	}
	if o.sum, err = sidecarSum(next); err != nil {
		return outcome{}, err
	}
	switch err := store.replace(next); {
	case err == unix.ENOENT:
		return outcome{gone: true}, nil
	case err != nil:
		return outcome{}, err
	}
	o.rewritten = true
	return o, nil
}

// damageOr sorts what is the sidecar's fault from what ends the run.
func damageOr(err error) (outcome, error) {
	var bad *sidecarError
	if errors.As(err, &bad) {
		return outcome{damage: bad.err}, nil
	}
	return outcome{}, err
}

func sidecarSum(sc *crypto.Sidecar) ([32]byte, error) {
	b, err := sc.Marshal() // what was parsed, byte for byte
	return sha256.Sum256(b), err
}
