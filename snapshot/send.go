package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kmsfs/snapshot/bucket"
	"kmsfs/volume"
)

// send brings the content of all data files into the bucket that are not in the
// state that the push goes out from, several at a time.
func (p *push) send(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(p.o.Jobs)
	err := walkTree(gctx, p.root, p.o.Live == nil, &sending{push: p, ctx: gctx, group: group, seen: make(map[inodeID]bool)})
	if werr := group.Wait(); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	return p.readAll()
}

// readAll is ErrUnread if there is anything that could not be copied.
func (p *push) readAll() error {
	if len(p.failures) == 0 {
		return nil
	}
	p.report.Unread = p.failures
	return fmt.Errorf("%d of the volume's entries could not be copied, the first of them %s (%s), and there is no new state: %w",
		len(p.failures), p.failures[0].Name, p.failures[0].Error, ErrUnread)
}

// sending is the walk of send.
type sending struct {
	*push
	ctx   context.Context
	group *errgroup.Group
	seen  map[inodeID]bool // of inodes with several names
}

func (s *sending) enter(*dirStack, int, string, *unix.Statx_t) (bool, error) { return true, nil }
func (s *sending) leave(*dirStack) error                                     { return nil }

func (s *sending) entry(at *dirStack, name string, st *unix.Statx_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	id := inodeID{device(st), st.Ino}
	if st.Nlink > 1 {
		if s.seen[id] {
			return nil
		}
		s.seen[id] = true
	}
	src, err := openSource(at.fd(), name, at.path(name), st, s.o.Live == nil)
	if err == unix.ENOENT {
		return err
	}
	if err != nil {
		s.unread(at.path(name), err)
		return nil
	}
	if h, err := src.header(); err == nil {
		f := File{Header: headerSum(h[:])}
		if f.ID, err = headerID(h[:]); err == nil && (s.known.fill(&f) || s.isFresh(&f)) {
			src.close()
			return nil
		}
	}
	s.group.Go(func() error {
		defer src.close()
		_, err := s.upload(s.ctx, src)
		return s.sort(src.path, err)
	})
	return nil
}

// sort tells what ends a push from what is the matter with a file.
func (p *push) sort(path string, err error) error {
	var errno unix.Errno
	switch {
	case err == nil:
		return nil
	case errors.Is(err, volume.ErrIntegrity), errors.Is(err, errUnsettled), errors.As(err, &errno):
		p.unread(path, err)
		return nil
	}
	return err
}

func (p *push) isFresh(f *File) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fresh[f.content()] != nil
}

// settleTries is how often a file is copied that changes meanwhile, before the mount
// is asked to hold it.
const settleTries = 5

// upload sends a file as it is at some moment while the push runs.
func (p *push) upload(ctx context.Context, src *source) (*sentFile, error) {
	for try := range settleTries {
		sent, err := p.tryUpload(ctx, src)
		if !errors.Is(err, errUnsettled) || p.o.Live == nil {
			return sent, err
		}
		select {
		case <-time.After(time.Duration(try) * 50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return p.uploadHeld(ctx, src)
}

// tryUpload sends a file, and is errUnsettled if it changed meanwhile.
//
// Every change of a file writes its record anew, before or after the blocks. So
// what is read is of one moment if the record was the same before, with no change
// under way then, and afterwards, with none under way then.
func (p *push) tryUpload(ctx context.Context, src *source) (*sentFile, error) {
	before, err := src.header()
	if err != nil {
		return nil, err
	}
	if err := p.settle(ctx, src); err != nil {
		return nil, err
	}
	if err := src.look(p.access); err != nil {
		return nil, err
	}
	if headerSum(before[:]) != src.file.Header {
		return nil, errUnsettled
	}
	f := src.file
	f.Push = p.id
	if p.o.Live != nil && f.ObjectSize() <= smallFile {
		return p.uploadSmall(ctx, src, &f)
	}
	if f.Sum, err = src.sum(); err != nil {
		return nil, err
	}
	if err := p.putFile(ctx, &f, src); err != nil {
		return nil, err
	}
	if err := p.unchanged(ctx, src, &f); err != nil {
		// Should this not be done, nothing refers to it.
		return nil, errors.Join(err, p.bucket.Delete(ctx, f.Key()))
	}
	return p.note(src, &f), nil
}

// smallFile is the length of an object, in bytes, up to which it is read before it is
// sent, where it may change.
const smallFile = 4 << 20

func (p *push) uploadSmall(ctx context.Context, src *source, f *File) (*sentFile, error) {
	b := bytes.NewBuffer(make([]byte, 0, f.ObjectSize()))
	sum, err := copyObject(b, src, f.ObjectSize())
	if err != nil {
		return nil, err
	}
	if err := p.unchanged(ctx, src, f); err != nil {
		return nil, err
	}
	f.Sum = sum
	if err := p.putFile(ctx, f, bytesAt(b.Bytes())); err != nil {
		return nil, err
	}
	return p.note(src, f), nil
}

// unchanged is errUnsettled unless the file is still what it was, with no change
// under way.
func (p *push) unchanged(ctx context.Context, src *source, f *File) error {
	if err := p.settle(ctx, src); err != nil {
		return err
	}
	now, err := src.header()
	if err == nil && headerSum(now[:]) != f.Header {
		err = errUnsettled
	}
	return err
}

// settle waits for the changes of a file that are under way.
func (p *push) settle(ctx context.Context, src *source) error {
	if p.o.Live == nil {
		return nil
	}
	return p.o.Live.Settle(ctx, src.ino, src.gen)
}

// note keeps what was sent.
func (p *push) note(src *source, f *File) *sentFile {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := &sentFile{f, src.record}
	p.fresh[f.content()] = f
	p.byInode[inodeID{src.dev, src.ino}] = sent
	return sent
}

// uploadHeld sends a file that never holds still: the mount keeps it as it is while
// it is copied to this host.
func (p *push) uploadHeld(ctx context.Context, src *source) (*sentFile, error) {
	local, err := spool(p.access)
	if err != nil {
		return nil, err
	}
	defer local.Close()
	f, err := p.copyHeld(ctx, src, local)
	if err != nil {
		return nil, err
	}
	if err := p.putFile(ctx, f, local); err != nil {
		return nil, err
	}
	return p.note(src, f), nil
}

func (p *push) copyHeld(ctx context.Context, src *source, local *os.File) (*File, error) {
	release, err := p.o.Live.Hold(ctx, src.ino, src.gen)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := src.look(p.access); err != nil {
		return nil, err
	}
	f := src.file
	f.Push = p.id
	if f.Sum, err = copyObject(local, src, f.ObjectSize()); err != nil {
		return nil, err
	}
	h, err := src.header()
	if err == nil && headerSum(h[:]) != f.Header {
		err = errUnsettled // it was held too long
	}
	return &f, err
}

// putFile sends an object, unless it is there since this push began.
func (p *push) putFile(ctx context.Context, f *File, body io.ReaderAt) error {
	key, size := f.Key(), f.ObjectSize()
	p.mu.Lock()
	had, there := p.sent[key]
	p.mu.Unlock()
	if there && had == size {
		info, err := p.bucket.Head(ctx, key)
		switch {
		case errors.Is(err, bucket.ErrNotFound):
		case err != nil:
			return err
		case info.Size == size && vouches(info.Checksum, f.Sum):
			f.Checksum = composite(info.Checksum)
			p.mu.Lock()
			p.used[key] = true
			p.report.FoundAgain++
			p.mu.Unlock()
			return nil
		}
	}
	info, err := p.putInfo(ctx, key, body, size, bucket.PutOptions{})
	if errors.Is(err, bucket.ErrMismatch) && p.o.Live != nil {
		return fmt.Errorf("%w: %w", errUnsettled, err) // it was read twice
	}
	if err != nil {
		return err
	}
	if info.Size != 0 && info.Size != size || !vouches(info.Checksum, f.Sum) {
		return errors.Join(errUnsettled, p.bucket.Delete(ctx, key))
	}
	f.Checksum = composite(info.Checksum)
	p.mu.Lock()
	p.used[key] = true
	p.mu.Unlock()
	return nil
}

// vouches is false where the store says that a content has another SHA-256.
func vouches(checksum string, sum [32]byte) bool {
	return checksum == "" || strings.Contains(checksum, "-") || checksum == encodeSum(sum)
}

// composite is what a store says of an object sent in parts.
func composite(checksum string) string {
	if strings.Contains(checksum, "-") {
		return checksum
	}
	return ""
}
