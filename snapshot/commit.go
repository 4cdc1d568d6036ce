package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"kmsfs/crypto"
	"kmsfs/snapshot/bucket"
)

// commit puts the manifest into the bucket, if there is anything new in it. The new
// state is there from then on. It is ErrPrecondition where another push was faster.
func (p *push) commit(ctx context.Context, f *os.File, t Totals) error {
	p.report.Generation = p.base.Generation
	p.report.Files, p.report.Dirs, p.report.Others, p.report.Bytes = t.Files, t.Directories, t.Others+t.Links, t.Bytes
	if p.base.Generation != 0 && t.Digest == p.known.digest {
		return nil
	}
	// Who takes a push for dead says so in its mark first, and then removes what it has sent.
	mark, err := p.bucket.Head(ctx, pushKey(p.id))
	if errors.Is(err, bucket.ErrNotFound) || err == nil && mark.Size > 0 {
		return fmt.Errorf("this push was taken for dead, and what it sent was removed; call it again: %w", ErrLost)
	}
	if err != nil {
		return err
	}
	generation := p.base.Generation + 1
	p.host.Committing = generation
	if err := p.host.save(); err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	info, err := p.putInfo(ctx, manifestKey(generation), f, st.Size(), bucket.PutOptions{IfAbsent: true})
	if errors.Is(err, bucket.ErrPrecondition) {
		// It may be ours, where the answer was lost.
		if mine, merr := p.isMine(ctx, generation); merr != nil || !mine {
			p.host.Committing = 0
			return errors.Join(err, merr, p.host.save())
		}
		info, err = p.bucket.Head(ctx, manifestKey(generation))
	}
	if err != nil {
		return err
	}
	p.report.Generation, p.report.Changed = generation, true
	if err := p.access.SeeManifest(p.o.Place, generation); err != nil {
		return err
	}
	return p.host.keep(f, generation, info)
}

// isMine tells whether the state of that generation is by this push.
func (p *push) isMine(ctx context.Context, generation uint64) (bool, error) {
	head, err := headOf(ctx, p, generation)
	return err == nil && head.Push == p.host.Push, err
}

// headOf reads the head of a manifest.
func headOf(ctx context.Context, p *push, generation uint64) (Head, error) {
	body, _, err := p.bucket.Get(ctx, manifestKey(generation), 0, -1)
	if err != nil {
		return Head{}, err
	}
	defer body.Close()
	o, err := newOpener(body, p.access.Manifests(), p.access.ID(), generation)
	if err != nil {
		return Head{}, err
	}
	d, err := newDecoder(o)
	if err != nil {
		return Head{}, err
	}
	return d.Head, nil
}

// settleCommitted finds out whether the push before was committed just before it
// was killed. Where it was, or that cannot be known any more, its ID is not used
// again: states may refer to what it sent.
func (p *push) settleCommitted(ctx context.Context) error {
	h := p.host
	mine, err := p.isMine(ctx, h.Committing)
	if err != nil && !errors.Is(err, bucket.ErrNotFound) {
		return err
	}
	if err != nil {
		whole, _, lerr := states(ctx, p.bucket)
		if lerr != nil {
			return lerr
		}
		if len(whole) == 0 || whole[len(whole)-1] < h.Committing {
			h.Committing = 0 // it never was
			return h.save()
		}
	}
	if mine {
		if err := p.access.SeeManifest(p.o.Place, h.Committing); err != nil {
			return err
		}
		if err := p.bucket.Delete(ctx, pushKey(h.Push)); err != nil {
			return err
		}
	}
	h.Push, h.Committing = crypto.ID{}, 0
	return h.save()
}

// finish removes what is not needed any more, and says that the push is done.
func (p *push) finish(ctx context.Context) error {
	if err := p.prune(ctx); err != nil {
		return err
	}
	var left []string
	for key := range p.sent {
		if !p.used[key] {
			left = append(left, key)
		}
	}
	if !p.report.Changed { // nothing refers to what this push sent
		for key := range p.used {
			left = append(left, key)
		}
	}
	if err := p.remove(ctx, left); err != nil {
		return err
	}
	if err := p.bucket.Delete(ctx, pushKey(p.id)); err != nil {
		return err
	}
	p.host.Push, p.host.Committing = crypto.ID{}, 0
	return p.host.save()
}

// remove removes objects, and counts them.
func (p *push) remove(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	if err := p.bucket.Delete(ctx, keys...); err != nil {
		return err
	}
	p.report.Removed += int64(len(keys))
	return nil
}
