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
//
// Mostly nothing is opened at all (unopened.go).

var _ = (fusefs.NodeOpendirHandler)((*node)(nil))

// OpendirHandle opens a directory. The kernel keeps what it reads: only this
// mount changes it.
func (n *node) OpendirHandle(ctx context.Context, _ uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	l, err := n.v.List()
	if err != nil {
		return nil, 0, n.m.errnoOf("opendir", err)
	}
	h := newDirHandle(n.m, n.v)
	h.list = l
	var flags uint32
	if !n.m.shared {
		flags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	if c, ok := ctx.(*fuse.Context); ok {
		n.m.opening.Store(c.Cancel, h) // for rawFS.OpenDir, which learns its number
	}
	return h, flags, 0
}

// dirHandle is a directory that is being listed: an open one, or all readers of one
// that nobody opened.
type dirHandle struct {
	m   *Mount
	dir *volume.Node

	mu      sync.Mutex
	list    *volume.Listing // nil between requests, if nobody says when it is to be closed
	at      uint64          // position after what was answered last
	next    volume.Entry    // read, and not answered yet, where there is one
	hasNext bool
	ended   bool // there was nothing after what was answered last
	looking looking
	listed  []uint64 // inode numbers of entries that were answered with attributes
}

func newDirHandle(m *Mount, dir *volume.Node) *dirHandle {
	h := &dirHandle{m: m, dir: dir}
	h.looking.left = lookAhead
	return h
}

// entries calls add with the entries from position off on, until it has no room, of
// size bytes. end says that there are none.
func (h *dirHandle) entries(off uint64, size uint32, add func(volume.Entry) bool) (end bool, errno syscall.Errno) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.list == nil {
		if h.ended && off == h.at {
			return true, 0
		}
		l, err := h.dir.List()
		if err != nil {
			return false, h.m.errnoOf("readdir", err)
		}
		defer func() {
			_ = l.Close()
			h.list, h.hasNext = nil, false
		}()
		l.Bound(int(size)) // an entry takes up about as much here and there
		h.list, h.at = l, 0
	}
	if off != h.at {
		if err := h.list.Seek(off); err != nil {
			return false, h.m.errnoOf("seekdir", err)
		}
		h.at, h.hasNext = off, false
	}
	for end, h.ended = true, false; ; end = false {
		if !h.hasNext {
			e, err := h.list.Next()
			if err == io.EOF {
				h.ended = true
				return end, 0
			}
			if err != nil {
				return false, h.m.errnoOf("readdir", err)
			}
			h.next, h.hasNext = e, true
		}
		if !add(h.next) {
			return false, 0
		}
		h.at, h.hasNext = h.next.Off, false
	}
}

// tellOrder lets foresight know what was listed so far, and in which order.
func (h *dirHandle) tellOrder() {
	h.mu.Lock()
	listed := h.listed
	h.mu.Unlock()
	h.dir.NoteListed(&listed)
}

func direntOf(e volume.Entry) fuse.DirEntry {
	return fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Kind, Off: e.Off}
}

var _ = (fusefs.FileReleasedirer)((*dirHandle)(nil))

func (h *dirHandle) Releasedir(ctx context.Context, _ uint32) { _ = h.list.Close() }

// OpenDir remembers which handle got which number.
func (r *rawFS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer r.m.asked(opOpendir)()
	if r.m.opensNoDirs() {
		return fuse.ENOSYS
	}
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

// listed is the directory that a request lists.
func (r *rawFS) listed(in *fuse.ReadIn) (*dirHandle, fuse.Status) {
	if in.Fh == 0 {
		return r.m.unopened.get(r.m, in.NodeId)
	}
	h, ok := r.m.dirs.Load(in.Fh)
	if !ok {
		return nil, fuse.EBADF
	}
	return h.(*dirHandle), fuse.OK
}

// answer lists entries from where a request says, until add has no room.
func (r *rawFS) answer(in *fuse.ReadIn, h *dirHandle, add func(volume.Entry) bool) fuse.Status {
	end, errno := h.entries(in.Offset, in.Size, add)
	if end && in.Fh == 0 {
		r.m.unopened.drop(r.m, in.NodeId)
	}
	return fuse.Status(errno)
}

// ReadDir answers with names.
func (r *rawFS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer r.m.asked(opReaddir)()
	h, st := r.listed(in)
	if !st.Ok() {
		return st
	}
	return r.answer(in, h, func(e volume.Entry) bool { return out.AddDirEntry(direntOf(e)) })
}

// ReadDirPlus answers with names, and what they are as far as that is of use. An
// entry that cannot be looked up, because it has just gone, is listed without.
func (r *rawFS) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	defer r.m.asked(opReaddirplus)()
	h, st := r.listed(in)
	if !st.Ok() {
		return st
	}
	header := in.InHeader
	answered := 0
	defer func() {
		if answered > 0 { // the last answer has nothing, and would be taken for another listing
			h.tellOrder()
		}
	}()
	return r.answer(in, h, func(e volume.Entry) bool {
		if in.Offset == 0 && answered == 0 || h.looking.looked.Load() {
			r.m.lookers.remove(in.NodeId, h)
			h.looking.again()
		}
		if in.Offset == 0 && answered == 0 {
			h.listed = nil
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
			h.list.Expect(e)
			if !r.told(entry, r.RawFileSystem.Lookup(cancel, &header, e.Name, entry)).Ok() {
				*entry = fuse.EntryOut{}
			} else if len(h.listed) < foresightLimit {
				h.listed = append(h.listed, e.Ino)
			}
		}
		return true
	})
}
