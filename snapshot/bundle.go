package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"

	"kmsfs/snapshot/bucket"
)

// bundleSize is how long a bundle gets, in bytes, or a little longer.
const bundleSize = 4 << 20

// bundler puts small things together into objects, and counts what is in use of
// those that there are, for one manifest.
type bundler struct {
	push    *push
	table   []Bundle
	old     map[uint64]uint64 // index in the state before → in table
	current int               // index of the one that is being filled, -1 if none is
	b       []byte            // what is in it
}

func newBundler(p *push) *bundler {
	return &bundler{push: p, old: make(map[uint64]uint64), current: -1}
}

// keep refers to a slice of the state before. It is false where too little of its
// bundle is in use: what is left goes into a new one.
func (b *bundler) keep(s Slice) (Slice, bool) {
	if s.Bundle >= uint64(len(b.push.known.bundles)) {
		return s, false
	}
	was := b.push.known.bundles[s.Bundle]
	if was.Live < was.Size/2 {
		return s, false
	}
	i, ok := b.old[s.Bundle]
	if !ok {
		i = uint64(len(b.table))
		was.Live = 0
		b.table = append(b.table, was)
		b.old[s.Bundle] = i
	}
	b.table[i].Live += s.Length
	s.Bundle = i
	return s, true
}

// add puts something into a bundle.
func (b *bundler) add(ctx context.Context, content []byte) (Slice, error) {
	if b.current < 0 {
		b.current = len(b.table)
		b.table = append(b.table, Bundle{Push: b.push.id})
	}
	s := Slice{Bundle: uint64(b.current), Offset: uint32(len(b.b)), Length: uint32(len(content)), Sum: sliceSum(content)}
	b.b = append(b.b, content...)
	b.table[b.current].Live += s.Length
	if len(b.b) < bundleSize {
		return s, nil
	}
	return s, b.flush(ctx)
}

// flush sends the bundle that is being filled.
func (b *bundler) flush(ctx context.Context) error {
	if b.current < 0 {
		return nil
	}
	x := &b.table[b.current]
	x.Sum, x.Size = sha256.Sum256(b.b), uint32(len(b.b))
	if err := b.send(ctx, x); err != nil {
		return err
	}
	b.current, b.b = -1, b.b[:0]
	return nil
}

func (b *bundler) send(ctx context.Context, x *Bundle) error {
	p, key := b.push, x.Key()
	p.used[key] = true
	if size, there := p.sent[key]; there && size == int64(x.Size) {
		info, err := p.bucket.Head(ctx, key)
		if err == nil && info.Size == size && vouches(info.Checksum, x.Sum) {
			p.report.FoundAgain++
			return nil
		}
		if err != nil && !errors.Is(err, bucket.ErrNotFound) {
			return err
		}
	}
	if err := p.put(ctx, key, bytesAt(b.b), int64(x.Size), bucket.PutOptions{}); err != nil {
		return err
	}
	p.sent[key] = int64(x.Size)
	return nil
}
