package fs

import (
	"context"
	"io"
	"sync"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"kmsfs/volume"
)

// The bridge opens and closes directories; rawFS reads them itself. When the
// kernel asks again from a place inside the last answer, go-fuse 2.12.1 replays
// that answer, and loses entries if they do not fit any more. Here such a request is
// a seek.

var _ = (fusefs.NodeOpendirHandler)((*node)(nil))

// OpendirHandle opens a directory. The kernel keeps what it reads: only this
// mount changes it.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	l, err := n.v.List()
	if err != nil {
		return nil, 0, n.m.errnoOf("opendir", err)
	}
	h := &dirHandle{n: n, list: l}
	h.looking.left = lookAhead
	flags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	if n.m.shared {
		flags = 0
	}
	if c, ok := ctx.(*fuse.Context); ok {
		n.m.opening.Store(c.Cancel, h) // for rawFS.OpenDir, which learns its number
	}
	return h, flags, 0
}

// dirHandle is an open directory.
type dirHandle struct {
	n *node

	mu      sync.Mutex
	list    *volume.Listing
	at      uint64       // position after what was answered last
	next    volume.Entry // read, and not answered yet, where there is one
	hasNext bool
	looking looking
}

// entries calls add with the entries from position off on, until it has no room.
func (h *dirHandle) entries(off uint64, add func(volume.Entry) bool) syscall.Errno {
	h.mu.Lock()
	defer h.mu.Unlock()
	if off != h.at {
		if err := h.list.Seek(off); err != nil {
			return h.n.m.errnoOf("seekdir", err)
		}
		h.at, h.hasNext = off, false
	}
	for {
		if !h.hasNext {
			e, err := h.list.Next()
			if err == io.EOF {
				return 0
			}
			if err != nil {
				return h.n.m.errnoOf("readdir", err)
			}
			h.next, h.hasNext = e, true
		}
		if !add(h.next) {
			return 0
		}
		h.at, h.hasNext = h.next.Off, false
	}
}

func direntOf(e volume.Entry) fuse.DirEntry {
	return fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Kind, Off: e.Off}
}

var _ = (fusefs.FileReleasedirer)((*dirHandle)(nil))

func (h *dirHandle) Releasedir(ctx context.Context, _ uint32) { _ = h.list.Close() }

var _ = (fusefs.FileFsyncdirer)((*dirHandle)(nil))

func (h *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return h.n.Fsync(ctx, nil, flags)
}

// OpenDir remembers which handle got which number.
func (r *rawFS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer r.m.asked(opOpendir)()
	st := r.RawFileSystem.OpenDir(cancel, in, out)
	if h, ok := r.m.opening.LoadAndDelete(cancel); ok && st.Ok() {
		r.m.dirs.Store(out.Fh, h)
	}
	return st
}

// ReleaseDir forgets it again.
func (r *rawFS) ReleaseDir(in *fuse.ReleaseIn) {
	r.m.counts.add(opReleasedir)
	if h, ok := r.m.dirs.LoadAndDelete(in.Fh); ok {
		r.m.lookers.remove(in.NodeId, h.(*dirHandle))
	}
	r.RawFileSystem.ReleaseDir(in)
}

// ReadDir answers with names.
func (r *rawFS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer r.m.asked(opReaddir)()
	h, ok := r.m.dirs.Load(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	return fuse.Status(h.(*dirHandle).entries(in.Offset, func(e volume.Entry) bool {
		return out.AddDirEntry(direntOf(e))
	}))
}

// ReadDirPlus answers with names, and what they are as far as that is of use. An
// entry that cannot be looked up, because it has just gone, is listed without.
func (r *rawFS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer r.m.asked(opReaddirplus)()
	v, ok := r.m.dirs.Load(in.Fh)
	if !ok {
		return fuse.EBADF
	}
	h := v.(*dirHandle)
	header := in.InHeader
	answered := 0
	return fuse.Status(h.entries(in.Offset, func(e volume.Entry) bool {
		if in.Offset == 0 && answered == 0 || h.looking.looked.Load() {
			r.m.lookers.remove(in.NodeId, h)
			h.looking.again()
		}
		if h.looking.ends(answered) {
			return false
		}
		entry := out.AddDirLookupEntry(direntOf(e))
		if entry == nil {
			return false
		}
		answered++
		switch {
		case e.Name == "." || e.Name == "..":
		case h.looking.left == 0:
			h.looking.names++
		default:
			if h.looking.left--; h.looking.left == 0 {
				r.m.lookers.add(in.NodeId, h)
			}
			if !r.told(entry, r.RawFileSystem.Lookup(cancel, &header, e.Name, entry)).Ok() {
				*entry = fuse.EntryOut{}
			}
		}
		return true
	}))
}
