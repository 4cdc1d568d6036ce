package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// states are the generations that a copy has, oldest first, and those of which
// something is left although they are being removed.
func states(ctx context.Context, b bucket.Bucket) (whole, pruned []uint64, err error) {
	dead := make(map[uint64]bool)
	for info, err := range b.List(ctx, manifestPrefix) {
		if err != nil {
			return nil, nil, err
		}
		g, isPruned, ok := parseManifestKey(info.Key)
		switch {
		case !ok:
		case isPruned:
			dead[g] = true
		default:
			whole = append(whole, g)
		}
	}
	whole = slices.DeleteFunc(whole, func(g uint64) bool { return dead[g] })
	for g := range dead {
		pruned = append(pruned, g)
	}
	slices.Sort(whole)
	slices.Sort(pruned)
	return whole, pruned, nil
}

// fetchManifest brings a manifest into a file without a name, and reads it to its
// end: all of it is authentic. The caller closes the file.
func fetchManifest(ctx context.Context, a *volume.Access, b bucket.Bucket, generation uint64) (f *os.File, d *decoder, err error) {
	body, info, err := b.Get(ctx, manifestKey(generation), 0, -1)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, nil, fmt.Errorf("state %d: %w: %w", generation, ErrNoState, err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	if f, err = spool(a); err != nil {
		return nil, nil, err
	}
	n, err := io.Copy(f, body)
	if err == nil && n != info.Size {
		err = fmt.Errorf("it has %d bytes, and %d came: %w", info.Size, n, bucket.ErrUnavailable)
	}
	if err == nil {
		d, err = checkManifest(a, f, generation)
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("state %d: %w", generation, err)
	}
	return f, d, nil
}

// spool makes a file without a name where this host remembers volumes.
func spool(a *volume.Access) (*os.File, error) {
	path := a.StateFile("spool")
	f, err := os.CreateTemp(dirOf(path), "spool-*.tmp")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// readManifest begins to read a manifest from its file.
func readManifest(a *volume.Access, f *os.File, generation uint64) (*decoder, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	o, err := newOpener(io.NewSectionReader(f, 0, st.Size()), a.Manifests(), a.ID(), generation)
	if err != nil {
		return nil, err
	}
	d, err := newDecoder(o)
	if err != nil {
		return nil, err
	}
	if d.Generation != o.at.Generation {
		return nil, fmt.Errorf("it says that it is of generation %d: %w", d.Generation, ErrManifest)
	}
	return d, nil
}

// checkManifest reads a manifest to its end, and returns what it says of itself.
func checkManifest(a *volume.Access, f *os.File, generation uint64) (*decoder, error) {
	d, err := readManifest(a, f, generation)
	for err == nil {
		_, err = d.next()
	}
	if err != io.EOF {
		return nil, err
	}
	if _, err := a.CheckConfig(d.Config); err != nil {
		return nil, err
	}
	return d, nil
}

// each calls do with all entries of a manifest.
func each(a *volume.Access, f *os.File, generation uint64, do func(*Entry) error) error {
	d, err := readManifest(a, f, generation)
	if err != nil {
		return err
	}
	for {
		x, err := d.next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = do(x)
		}
		if err != nil {
			return err
		}
	}
}
