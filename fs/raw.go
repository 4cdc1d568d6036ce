package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// rawFS sits between the server and the node tree: it answers what the node API
// cannot, passes on what that hides, and counts.
type rawFS struct {
	fuse.RawFileSystem
	m        *Mount
	keepOpen bool
}

// Open is answered ENOSYS once; the kernel then never asks again, nor for
// RELEASE. Reads and writes find their node without a handle.
func (r *rawFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	defer r.m.asked(opOpen)()
	if !r.keepOpen {
		return fuse.ENOSYS
	}
	if r.m.shared {
		return r.opened(cancel, out, r.RawFileSystem.Open(cancel, in, out))
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Flush is answered ENOSYS likewise: closing a file writes its dirty pages by
// itself, and a write has reached the backing file when it is answered.
func (r *rawFS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	defer r.m.asked(opFlush)()
	if r.m.shared {
		return r.flushShared(in)
	}
	return fuse.ENOSYS
}

// CopyFileRange cannot share blocks: every block is bound to its file and place.
// ENOSYS makes the kernel copy through the page cache.
func (r *rawFS) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	defer r.m.asked(opCopyFileRange)()
	return 0, fuse.ENOSYS
}

// Write honours WRITE_KILL_SUIDGID, which the node API does not show.
func (r *rawFS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	defer r.m.asked(opWrite)()
	if in.WriteFlags&fuse.WRITE_CACHE != 0 {
		r.m.counts.writebacks.Add(1)
	}
	var n uint32
	var st fuse.Status
	if in.Flags&unix.O_APPEND != 0 && r.m.shared {
		n, st = r.appendShared(in, data)
	} else {
		n, st = r.RawFileSystem.Write(cancel, in, data)
	}
	r.m.counts.written.Add(uint64(n))
	if st.Ok() && in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		st = r.dropPrivileges(cancel, &in.InHeader)
	}
	return n, st
}

// Writev is what the server calls first.
func (r *rawFS) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if len(data) == 1 {
		return r.Write(cancel, in, data[0])
	}
	return 0, fuse.ENOSYS // Write is called instead
}

// Fallocate changes the file as a write does, but the kernel does not say
// whether the caller has the right to keep suid and sgid: root has.
func (r *rawFS) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	defer r.m.asked(opFallocate)()
	st := r.RawFileSystem.Fallocate(cancel, in)
	if st.Ok() && in.Uid != 0 {
		st = r.dropPrivileges(cancel, &in.InHeader)
	}
	return st
}

// dropPrivileges takes suid and sgid. The kernel does not expect that of a
// write, and would show them until it asks for some other reason.
func (r *rawFS) dropPrivileges(cancel <-chan struct{}, h *fuse.InHeader) fuse.Status {
	var before, after fuse.AttrOut
	if st := r.RawFileSystem.GetAttr(cancel, &fuse.GetAttrIn{InHeader: *h}, &before); !st.Ok() {
		return st
	}
	set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: *h, Valid: fuse.FATTR_KILL_SUIDGID}}
	if st := r.RawFileSystem.SetAttr(cancel, &set, &after); !st.Ok() {
		return st
	}
	if after.Mode != before.Mode {
		r.m.server.InodeNotify(h.NodeId, -1, 0) // ENOENT when it has just been forgotten
	}
	return fuse.OK
}
