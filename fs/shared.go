package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// On a shared mount the kernel keeps nothing: entries and attributes time out at
// once, every OPEN, FLUSH and RELEASE is asked for, and reads and writes pass its page
// cache by (direct I/O), where pages would be stale as soon as another host writes.
// Only what is mapped is cached; the next open drops it.

// shareOptions are the kernel's options of a shared mount.
func (m *Mount) shareOptions(o *fuse.MountOptions) {
	o.EnableLocks = true
	o.ExplicitDataCacheControl = false // AUTO_INVAL: pages of mappings
	o.EnableSymlinkCaching = false
	o.DisableReadDirPlus = true // attributes would be stale by then
	o.ExtraCapabilities |= fuse.CAP_DIRECT_IO_ALLOW_MMAP
}

// sharedHandle is an open file of a shared mount: it keeps the file usable whatever
// another host does to its names.
type sharedHandle struct {
	v       *volume.Node
	release func()
}

var _ = (fusefs.NodeOpener)((*node)(nil))

// Open is asked on shared mounts alone.
func (n *node) Open(ctx context.Context, _ uint32) (fusefs.FileHandle, uint32, syscall.Errno) {
	return n.m.openShared(ctx, n.v)
}

func (m *Mount) openShared(ctx context.Context, v *volume.Node) (fusefs.FileHandle, uint32, syscall.Errno) {
	h := &sharedHandle{v: v, release: func() {}}
	if v.IsRegular() {
		var err error
		if h.release, err = v.Hold(); err != nil {
			return nil, 0, m.errnoOf("open", err)
		}
	}
	if c, ok := ctx.(*fuse.Context); ok {
		m.opening.Store(c.Cancel, h) // for rawFS.opened, which learns its number
	}
	return h, fuse.FOPEN_DIRECT_IO, 0
}

// openMade opens a file that was just made.
func (n *node) openMade(ctx context.Context, inode *fusefs.Inode, v *volume.Node) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	h, flags, errno := n.m.openShared(ctx, v)
	return inode, h, flags, errno
}

// opened remembers which handle got which number.
func (r *rawFS) opened(cancel <-chan struct{}, out *fuse.OpenOut, st fuse.Status) fuse.Status {
	if h, ok := r.m.opening.LoadAndDelete(cancel); ok {
		if st.Ok() {
			r.m.files.Store(out.Fh, h)
		} else {
			h.(*sharedHandle).release()
		}
	}
	return st
}

func (r *rawFS) handle(fh uint64) *sharedHandle {
	if h, ok := r.m.files.Load(fh); ok {
		return h.(*sharedHandle)
	}
	return nil
}

// flushShared answers close(2): a process's locks of the file go, as POSIX has it, and
// what it wrote is the store's.
func (r *rawFS) flushShared(in *fuse.FlushIn) fuse.Status {
	h := r.handle(in.Fh)
	if h == nil {
		return fuse.OK
	}
	err := h.v.HandOver()
	h.v.DropLocks(volume.LockOwner{Owner: in.LockOwner})
	return fuse.Status(r.m.errnoOf("close", err))
}

// releaseShared ends an open file. The kernel says nothing of locks of open file
// descriptions: those that were taken through it go.
func (r *rawFS) releaseShared(in *fuse.ReleaseIn) {
	h, ok := r.m.files.LoadAndDelete(in.Fh)
	if !ok {
		return
	}
	s := h.(*sharedHandle)
	s.v.DropHandle(in.Fh)
	s.release()
}

// appendShared writes to the end of the file, which the kernel does not know: what it
// takes for the offset is from before others wrote.
func (r *rawFS) appendShared(in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h := r.handle(in.Fh)
	if h == nil || in.WriteFlags&fuse.WRITE_CACHE != 0 {
		return r.RawFileSystem.Write(nil, in, data)
	}
	if r.m.noXattr {
		if err := h.v.DropCapability(); err != nil {
			return 0, fuse.Status(r.m.errnoOf("write", err))
		}
	}
	n, err := h.v.Append(r.m.ctx, data)
	if err != nil && n == 0 {
		return 0, fuse.Status(r.m.errnoOf("write", err))
	}
	return uint32(n), fuse.OK
}

func lockOf(in *fuse.LkIn) (volume.LockOwner, volume.Lock) {
	return volume.LockOwner{Owner: in.Owner, Flock: in.LkFlags&fuse.FUSE_LK_FLOCK != 0},
		volume.Lock{Kind: int16(in.Lk.Typ), Start: in.Lk.Start, End: in.Lk.End}
}

func (r *rawFS) setLock(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	h := r.handle(in.Fh)
	if h == nil || !h.v.IsRegular() {
		return fuse.Status(unix.ENOLCK)
	}
	owner, lock := lockOf(in)
	return fuse.Status(r.m.errnoOf("lock", h.v.SetLock(owner, in.Fh, lock, wait, cancel)))
}

func (r *rawFS) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	defer r.m.asked(opSetlk)()
	return r.setLock(cancel, in, false)
}

func (r *rawFS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	defer r.m.asked(opSetlkw)()
	return r.setLock(cancel, in, true)
}

// GetLk answers with who is in the way, but for its process: that may be on another host.
func (r *rawFS) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	defer r.m.asked(opGetlk)()
	h := r.handle(in.Fh)
	if h == nil || !h.v.IsRegular() {
		return fuse.Status(unix.ENOLCK)
	}
	owner, lock := lockOf(in)
	found, err := h.v.FindLock(owner, lock)
	if err != nil {
		return fuse.Status(r.m.errnoOf("lock", err))
	}
	out.Lk = fuse.FileLock{Start: found.Start, End: found.End, Typ: uint32(found.Kind)}
	return fuse.OK
}
