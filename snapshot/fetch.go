package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/snapshot/bucket"
)

// file makes a data file what the state says, with its sidecar first. dirfd is its
// directory.
func (p *pull) file(ctx context.Context, dirfd int, name string, x *Entry) error {
	f := x.File
	if err := p.sidecar(ctx, f); err != nil {
		return err
	}
	same, err := p.isThere(dirfd, name, f)
	if err != nil {
		return err
	}
	if same {
		p.progress(f.ObjectSize(), func(r *PullReport) { r.Kept++ })
		return p.attributes(dirfd, name, x)
	}
	tmp, err := p.temporary()
	if err != nil {
		return err
	}
	fd, err := openat(dirfd, tmp, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = p.fetchFile(ctx, fd, f)
	if err == nil {
		err = p.attributesOf(fd, x)
	}
	if err == nil {
		err = again(func() error { return unix.Fsync(fd) })
	}
	if err == nil {
		err = p.rename(dirfd, tmp, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, tmp, 0)
		return err
	}
	p.progress(f.ObjectSize(), func(r *PullReport) { r.Placed++; r.Got++; r.GotBytes += f.ObjectSize() })
	return nil
}

func (p *pull) progress(bytes int64, count func(*PullReport)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count(&p.report)
	p.done += bytes
	if p.o.Progress != nil {
		p.o.Progress(p.done, int64(p.d.Bytes))
	}
}

// isThere tells whether a data file is here as it should be: its record says which
// content it is. With Full its bytes are looked at, too.
func (p *pull) isThere(dirfd int, name string, f *File) (bool, error) {
	var st unix.Statx_t
	if err := statx(dirfd, name, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int64(st.Size) != f.CipherSize() {
		return false, ignoreMissing(err)
	}
	src, err := openSource(dirfd, name, name, &st, true)
	if err != nil {
		return false, ignoreMissing(err)
	}
	defer src.close()
	h, err := src.header()
	if err != nil || headerSum(h[:]) != f.Header {
		return false, nil
	}
	if !p.o.Full {
		return true, nil
	}
	src.file = *f
	sum, err := src.sum()
	return err == nil && sum == f.Sum, nil
}

func ignoreMissing(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// fetchTries is how often an object is asked for whose body ends early.
const fetchTries = 4

// fetchFile brings the content of a data file into an empty file, and verifies it.
func (p *pull) fetchFile(ctx context.Context, fd int, f *File) error {
	return retryFetch(ctx, func() error {
		if err := unix.Ftruncate(fd, 0); err != nil {
			return err
		}
		body, info, err := p.bucket.Get(ctx, f.Key(), 0, -1)
		if err != nil {
			return damagedIfMissing(f.Key(), err)
		}
		defer body.Close()
		if info.Size != f.ObjectSize() {
			return fmt.Errorf("object %s has %d bytes, and should have %d: %w", f.Key(), info.Size, f.ObjectSize(), ErrDamaged)
		}
		sum, err := writeExtents(fd, f, body)
		if err != nil {
			return err
		}
		if sum != f.Sum {
			return fmt.Errorf("object %s is another one, or was changed: %w", f.Key(), ErrDamaged)
		}
		return unix.Ftruncate(fd, f.CipherSize())
	})
}

func damagedIfMissing(key string, err error) error {
	if errors.Is(err, bucket.ErrNotFound) {
		return fmt.Errorf("object %s is missing: %w: %w", key, ErrDamaged, err)
	}
	return err
}

func retryFetch(ctx context.Context, fetch func() error) (err error) {
	for try := range fetchTries {
		if err = fetch(); !errors.Is(err, bucket.ErrUnavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * 500 * time.Millisecond):
		}
	}
	return err
}

// writeExtents writes an object to where its parts belong, and returns its SHA-256.
func writeExtents(fd int, f *File, body io.Reader) (sum [32]byte, err error) {
	extents := f.Extents
	if extents == nil {
		extents = []Extent{{0, f.CipherSize()}}
	}
	h := sha256.New()
	b := buffers.Get().(*[copySize]byte)
	defer buffers.Put(b)
	for _, x := range extents {
		for off := x.CipherOff; off < x.CipherOff+x.Length; {
			part := b[:min(int64(len(b)), x.CipherOff+x.Length-off)]
			if _, err := io.ReadFull(body, part); err != nil {
				if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
					err = fmt.Errorf("object %s ends early: %w", f.Key(), bucket.ErrUnavailable)
				}
				return sum, err
			}
			h.Write(part)
			if err := writeFullAt(fd, part, off); err != nil {
				return sum, err
			}
			off += int64(len(part))
		}
	}
	return [32]byte(h.Sum(nil)), nil
}

func writeFullAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n := 0
		err := again(func() (err error) { n, err = unix.Pwrite(fd, b, off); return err })
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// sidecar makes sure that a file's wrapped key is here.
func (p *pull) sidecar(ctx context.Context, f *File) error {
	if f.Sidecar.Length == 0 {
		return nil
	}
	keys, err := openat(p.meta, keysDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(keys)
	b, err := readSidecar(keys, f.ID)
	if err == nil && (sliceSum(b) == f.Sidecar.Sum || p.keepKeys) {
		return nil
	}
	b, err = p.bundles.slice(ctx, f.Sidecar)
	if err != nil {
		return fmt.Errorf("its key: %w", err)
	}
	s := f.ID.String()
	if err := unix.Mkdirat(keys, s[:2], 0o700); err != nil && err != unix.EEXIST {
		return err
	}
	return p.inMeta(keysDir+"/"+s[:2], s, b)
}

// bundleReader gets slices of bundles, and keeps the bundles that were read last.
type bundleReader struct {
	pull  *pull
	table []Bundle
	mu    sync.Mutex
	last  []readBundle
}

type readBundle struct {
	index uint64
	b     []byte
}

// keptBundles is how many are kept in memory.
const keptBundles = 8

func (r *bundleReader) slice(ctx context.Context, s Slice) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, err := r.bundle(ctx, s.Bundle)
	if err != nil {
		return nil, err
	}
	if uint64(s.Offset)+uint64(s.Length) > uint64(len(b)) {
		return nil, fmt.Errorf("a slice outside of its bundle: %w", ErrManifest)
	}
	out := b[s.Offset:][:s.Length]
	if sliceSum(out) != s.Sum {
		return nil, fmt.Errorf("a slice that is none of its bundle: %w", ErrManifest)
	}
	return out, nil
}

func (r *bundleReader) bundle(ctx context.Context, index uint64) ([]byte, error) {
	for _, k := range r.last {
		if k.index == index {
			return k.b, nil
		}
	}
	if index >= uint64(len(r.table)) {
		return nil, fmt.Errorf("an unknown bundle: %w", ErrManifest)
	}
	x := &r.table[index]
	b, err := getBundle(ctx, r.pull.bucket, x)
	if err != nil {
		return nil, err
	}
	r.pull.mu.Lock()
	r.pull.report.Got++
	r.pull.report.GotBytes += int64(len(b))
	r.pull.mu.Unlock()
	if len(r.last) == keptBundles {
		r.last = r.last[1:]
	}
	r.last = append(r.last, readBundle{index, b})
	return b, nil
}

// getBundle gets a bundle, and verifies it.
func getBundle(ctx context.Context, b bucket.Bucket, x *Bundle) (out []byte, err error) {
	err = retryFetch(ctx, func() (err error) {
		out, err = getSmall(ctx, b, x.Key(), int64(x.Size))
		return damagedIfMissing(x.Key(), err)
	})
	if err != nil {
		return nil, err
	}
	if uint32(len(out)) != x.Size || sha256.Sum256(out) != x.Sum {
		return nil, fmt.Errorf("object %s is another one, or was changed: %w", x.Key(), ErrDamaged)
	}
	return out, nil
}

// replaceSmall puts a small file of kmsfs's own in the place of name, durably, by
// way of a temporary.
func (p *pull) replaceSmall(dirfd int, name string, b []byte) error {
	tmp, err := p.temporary()
	if err != nil {
		return err
	}
	return p.replaceBy(dirfd, tmp, name, b)
}

func (p *pull) replaceBy(dirfd int, tmp, name string, b []byte) error {
	fd, err := openat(dirfd, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = writeFullAt(fd, b, 0)
	if err == nil {
		err = p.keepOwner(dirfd, fd)
	}
	if err == nil {
		err = again(func() error { return unix.Fsync(fd) })
	}
	unix.Close(fd)
	if err == nil {
		err = p.rename(dirfd, tmp, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, tmp, 0)
	}
	return err
}

// keepOwner gives what root makes to the owner of the directory.
func (p *pull) keepOwner(dirfd, fd int) error {
	var st unix.Statx_t
	if !p.asRoot {
		return nil
	}
	if err := statx(dirfd, "", &st); err != nil || st.Uid == 0 && st.Gid == 0 {
		return err
	}
	return unix.Fchown(fd, int(st.Uid), int(st.Gid))
}

// inMeta writes a file below .kmsfs, unless it is there as it should be.
func (p *pull) inMeta(dir, name string, b []byte) error {
	fd, err := openat(p.meta, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if now, err := readSmall(fd, name, len(b)); err == nil && string(now) == string(b) {
		return nil
	}
	return p.replaceSmall(fd, name, b)
}

// placeConfig makes volume.json what the state says, or, of a part of a volume, is
// content with any.
func (p *pull) placeConfig() error {
	if p.o.Path != "" {
		if b, err := readSmall(p.meta, configKey, maxConfig); err == nil {
			if _, err := p.access.CheckConfig(b); err == nil {
				return nil
			}
		}
	}
	return p.inMeta(".", configKey, p.d.Config)
}
