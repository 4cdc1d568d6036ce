package snapshot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmsfs/crypto"
	"kmsfs/snapshot/bucket"
)

// deadAfter is how long after its last sign a push is taken for dead, by the
// bucket's clock; markEvery is how often one that lives gives a sign.
const (
	deadAfter = 7 * 24 * time.Hour
	markEvery = time.Hour
)

// prune removes the states that are not to be kept, and what pushes have left that
// died long ago.
//
// A state refers only to objects that its push sent, and to those of the state
// before: so what the next state does not refer to, no later one does. Of a state
// that goes, its mark comes first (it is none from then on), then its objects go,
// then its manifest, and the mark.
func (p *push) prune(ctx context.Context) error {
	whole, pruned, err := states(ctx, p.bucket)
	if err != nil {
		return err
	}
	drop := pruned
	if n := len(whole) - p.o.Keep; p.o.Keep > 0 && n > 0 {
		drop = append(drop, whole[:n]...)
	}
	for _, g := range drop {
		next := uint64(0)
		for _, w := range append(whole, pruned...) {
			if w > g && (next == 0 || w < next) {
				next = w
			}
		}
		if next == 0 {
			continue // the last one there is
		}
		err := p.dropState(ctx, g, next)
		if errors.Is(err, ErrManifest) {
			p.o.Log.Warn("a state that is not to be kept cannot be read, and stays", "generation", g, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("remove state %d: %w", g, err)
		}
		p.report.StatesRemoved = append(p.report.StatesRemoved, g)
	}
	if s, ok := p.bucket.(bucket.Sweeper); ok {
		if _, err := s.Sweep(ctx, p.o.Now().Add(-deadAfter)); err != nil {
			return fmt.Errorf("remove unfinished uploads: %w", err)
		}
	}
	return p.buryDead(ctx)
}

// dropState removes a state, and what is not in the next one.
func (p *push) dropState(ctx context.Context, generation, next uint64) error {
	key := manifestKey(generation)
	refs := make(map[string]struct{})
	err := p.eachObject(ctx, generation, func(key string) { refs[key] = struct{}{} })
	switch {
	case errors.Is(err, ErrNoState): // only the mark is left
		return p.bucket.Delete(ctx, key+prunedSuffix)
	case err != nil:
		return err
	}
	err = p.eachObject(ctx, next, func(key string) { delete(refs, key) })
	if errors.Is(err, ErrNoState) {
		return fmt.Errorf("state %d is gone: %w", next, ErrManifest)
	}
	if err != nil {
		return err
	}
	if _, err := p.bucket.Put(ctx, key+prunedSuffix, emptyReader{}, 0, bucket.PutOptions{}); err != nil {
		return err
	}
	keys := make([]string, 0, len(refs))
	for key := range refs {
		keys = append(keys, key)
	}
	if err := p.remove(ctx, keys); err != nil {
		return err
	}
	if err := p.bucket.Delete(ctx, key); err != nil {
		return err
	}
	return p.bucket.Delete(ctx, key+prunedSuffix)
}

// eachObject calls do with the keys of all objects that a state refers to.
func (p *push) eachObject(ctx context.Context, generation uint64, do func(key string)) error {
	f, d, err := openState(ctx, p.access, p.bucket, p.host, generation)
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range d.Bundles {
		do(d.Bundles[i].Key())
	}
	return each(p.access, f, generation, func(x *Entry) error {
		if x.Kind == KindFile {
			do(x.File.Key())
		}
		return nil
	})
}

// buryDead removes what pushes have sent that gave no sign for long and of which no
// state has anything.
func (p *push) buryDead(ctx context.Context) error {
	var now time.Time
	marks := make(map[crypto.ID]time.Time)
	for info, err := range p.bucket.List(ctx, pushPrefix) {
		if err != nil {
			return err
		}
		id, err := crypto.ParseID(info.Key[len(pushPrefix):])
		switch {
		case err != nil:
		case id == p.id:
			now = info.Modified
		default:
			marks[id] = info.Modified
		}
	}
	for id, since := range marks {
		if now.IsZero() || now.Sub(since) < deadAfter {
			continue
		}
		if err := p.bury(ctx, id); err != nil {
			return fmt.Errorf("remove what push %s left: %w", id, err)
		}
	}
	return nil
}

func (p *push) bury(ctx context.Context, id crypto.ID) error {
	if _, err := p.bucket.Put(ctx, pushKey(id), bytesAt([]byte("d")), 1, bucket.PutOptions{}); err != nil {
		return err
	}
	left := make(map[string]bool)
	for info, err := range p.bucket.List(ctx, objectsOf(id)) {
		if err != nil {
			return err
		}
		left[info.Key] = true
	}
	whole, pruned, err := states(ctx, p.bucket)
	if err != nil {
		return err
	}
	for _, g := range append(whole, pruned...) {
		err := p.eachObject(ctx, g, func(key string) { delete(left, key) })
		if err != nil && !errors.Is(err, ErrNoState) {
			return err
		}
	}
	keys := make([]string, 0, len(left))
	for key := range left {
		keys = append(keys, key)
	}
	if err := p.remove(ctx, keys); err != nil {
		return err
	}
	return p.bucket.Delete(ctx, pushKey(id))
}
