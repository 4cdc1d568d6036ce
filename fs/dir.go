package fs

import (
	"context"
	"io"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"kmsfs/volume"
)

var _ = (fusefs.NodeOpendirHandler)((*node)(nil))

// OpendirHandle opens a directory. The kernel keeps what it reads: only this
// mount changes it.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	l, err := n.v.List()
	if err != nil {
		return nil, 0, n.m.errnoOf("opendir", err)
	}
	return &dirHandle{n: n, list: l}, fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE, 0
}

// dirHandle is an open directory. The bridge calls it from one goroutine at a
// time.
type dirHandle struct {
	n    *node
	list *volume.Listing
	last volume.Entry // the one that Lookup will be asked for
}

var _ = (fusefs.FileReaddirenter)((*dirHandle)(nil))

func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	e, err := h.list.Next()
	if err == io.EOF {
		return nil, 0
	}
	if err != nil {
		return nil, h.n.m.errnoOf("readdir", err)
	}
	h.last = e
	return &fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Kind, Off: e.Off}, 0
}

var _ = (fusefs.FileLookuper)((*dirHandle)(nil))

// Lookup serves READDIRPLUS without encrypting again the name that was just
// decrypted.
func (h *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if name != h.last.Name {
		return h.n.Lookup(ctx, name, out)
	}
	child, a, err := h.list.Lookup(h.last)
	return h.n.entry(ctx, "lookup", child, a, err, out)
}

var _ = (fusefs.FileSeekdirer)((*dirHandle)(nil))

func (h *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	return h.n.m.errnoOf("seekdir", h.list.Seek(off))
}

var _ = (fusefs.FileReleasedirer)((*dirHandle)(nil))

func (h *dirHandle) Releasedir(ctx context.Context, _ uint32) { _ = h.list.Close() }

var _ = (fusefs.FileFsyncdirer)((*dirHandle)(nil))

func (h *dirHandle) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return h.n.Fsync(ctx, nil, flags)
}
