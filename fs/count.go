package fs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Counts counts requests by kind. RELEASE, FORGET and RELEASEDIR, for which no
// program waits, are counted like the others.
type Counts struct {
	n             [opCount]atomic.Uint64
	read, written atomic.Uint64 // bytes
	writebacks    atomic.Uint64 // WRITEs of pages that the kernel kept
}

type op int

const (
	opLookup op = iota
	opForget
	opGetattr
	opSetattr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opCreate
	opOpen
	opRead
	opWrite
	opFlush
	opRelease
	opFsync
	opLseek
	opCopyFileRange
	opOpendir
	opReaddir
	opReaddirplus
	opReleasedir
	opFsyncdir
	opStatfs
	opGetxattr
	opListxattr
	opSetxattr
	opRemovexattr
	opFallocate
	opTmpfile
	opStatx
	opGetlk
	opSetlk
	opSetlkw
	opCount
)

var opNames = [opCount]string{
	"LOOKUP", "FORGET", "GETATTR", "SETATTR", "READLINK", "SYMLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR",
	"RENAME", "LINK", "CREATE", "OPEN", "READ", "WRITE", "FLUSH", "RELEASE", "FSYNC", "LSEEK",
	"COPY_FILE_RANGE", "OPENDIR", "READDIR", "READDIRPLUS", "RELEASEDIR", "FSYNCDIR", "STATFS",
	"GETXATTR", "LISTXATTR", "SETXATTR", "REMOVEXATTR",
	"FALLOCATE", "TMPFILE", "STATX", "GETLK", "SETLK", "SETLKW",
}

func (c *Counts) add(o op) { c.n[o].Add(1) }

// total is how many requests have come.
func (c *Counts) total() (n uint64) {
	for i := range c.n {
		n += c.n[i].Load()
	}
	return n
}

// Snapshot returns the counts by the kernel's name of the request; kinds that
// never came are left out.
func (c *Counts) Snapshot() map[string]uint64 {
	out := make(map[string]uint64)
	for i := range c.n {
		if n := c.n[i].Load(); n > 0 {
			out[opNames[i]] = n
		}
	}
	return out
}

// Bytes is how many bytes of content the kernel was given, and gave. What it
// answered from its own cache is not in it.
func (c *Counts) Bytes() (read, written uint64) { return c.read.Load(), c.written.Load() }

// The methods below only count and pass on, and note what the kernel comes to
// know; those that make something with a mode apply the umask where the kernel
// leaves that to us.

// told notes an entry in an answer.
func (r *rawFS) told(out *fuse.EntryOut, st fuse.Status) fuse.Status {
	if st.Ok() {
		r.m.known.told(out)
	}
	return st
}

func (r *rawFS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	defer r.m.asked(opLookup)()
	st := r.told(out, r.RawFileSystem.Lookup(cancel, h, name, out))
	if st.Ok() && out.NodeId != 0 {
		r.m.lookers.found(h.NodeId)
	}
	return st
}

func (r *rawFS) Forget(id, n uint64) {
	r.m.counts.add(opForget)
	if r.m.known.forgotten(id, n) {
		r.m.unopened.drop(r.m, id)
	}
	r.RawFileSystem.Forget(id, n)
}

func (r *rawFS) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer r.m.asked(opGetattr)()
	return r.RawFileSystem.GetAttr(cancel, in, out)
}

func (r *rawFS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	defer r.m.asked(opSetattr)()
	return r.RawFileSystem.SetAttr(cancel, in, out)
}

func (r *rawFS) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	defer r.m.asked(opReadlink)()
	return r.RawFileSystem.Readlink(cancel, h)
}

func (r *rawFS) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	defer r.m.asked(opSymlink)()
	return r.told(out, r.RawFileSystem.Symlink(cancel, h, target, name, out))
}

func (r *rawFS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	defer r.m.asked(opMknod)()
	in.Mode = r.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return r.told(out, r.RawFileSystem.Mknod(cancel, in, name, out))
}

func (r *rawFS) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	defer r.m.asked(opMkdir)()
	in.Mode = r.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	return r.told(out, r.RawFileSystem.Mkdir(cancel, in, name, out))
}

func (r *rawFS) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer r.m.asked(opUnlink)()
	return r.RawFileSystem.Unlink(cancel, h, name)
}

func (r *rawFS) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer r.m.asked(opRmdir)()
	return r.RawFileSystem.Rmdir(cancel, h, name)
}

func (r *rawFS) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	defer r.m.asked(opRename)()
	return r.RawFileSystem.Rename(cancel, in, oldName, newName)
}

func (r *rawFS) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	defer r.m.asked(opLink)()
	return r.told(out, r.RawFileSystem.Link(cancel, in, name, out))
}

// Create is answered ENOSYS as Open is: the kernel sends MKNOD instead, and no RELEASE.
func (r *rawFS) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	defer r.m.asked(opCreate)()
	if !r.keepOpen {
		return fuse.ENOSYS
	}
	in.Mode = r.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	st := r.RawFileSystem.Create(cancel, in, name, out)
	if r.m.shared {
		st = r.opened(cancel, &out.OpenOut, st)
	}
	return r.told(&out.EntryOut, st)
}

func (r *rawFS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	defer r.m.asked(opRead)()
	result, st := r.RawFileSystem.Read(cancel, in, buf)
	if st.Ok() {
		r.m.counts.read.Add(uint64(result.Size()))
	}
	return result, st
}

func (r *rawFS) Release(cancel <-chan struct{}, in *fuse.ReleaseIn) {
	r.m.counts.add(opRelease)
	if r.m.shared {
		r.releaseShared(in)
	}
	r.RawFileSystem.Release(cancel, in)
}

func (r *rawFS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer r.m.asked(opFsync)()
	return r.RawFileSystem.Fsync(cancel, in)
}

func (r *rawFS) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	defer r.m.asked(opFsyncdir)()
	return r.RawFileSystem.FsyncDir(cancel, in)
}

func (r *rawFS) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	defer r.m.asked(opStatfs)()
	return r.RawFileSystem.StatFs(cancel, h, out)
}

func (r *rawFS) Lseek(cancel <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	defer r.m.asked(opLseek)()
	return r.RawFileSystem.Lseek(cancel, in, out)
}

func (r *rawFS) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	defer r.m.asked(opTmpfile)()
	in.Mode = r.masked(cancel, &in.InHeader, in.Mode, in.Umask)
	st := r.RawFileSystem.Tmpfile(cancel, in, out)
	if r.m.shared {
		st = r.opened(cancel, &out.OpenOut, st)
	}
	return r.told(&out.EntryOut, st)
}

func (r *rawFS) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	defer r.m.asked(opStatx)()
	return r.RawFileSystem.Statx(cancel, in, out)
}
