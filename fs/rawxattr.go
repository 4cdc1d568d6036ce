package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// Where there are no attributes, the server has answered ENOSYS, and what comes
// here comes never.

func (r *rawFS) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	defer r.m.asked(opGetxattr)()
	return r.RawFileSystem.GetXAttr(cancel, h, name, dest)
}

func (r *rawFS) ListXAttr(cancel <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	defer r.m.asked(opListxattr)()
	return r.RawFileSystem.ListXAttr(cancel, h, dest)
}

// SetXAttr clears the setgid bit where an access ACL is set by somebody outside
// of the file's group, which the node API does not show.
func (r *rawFS) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, value []byte) fuse.Status {
	defer r.m.asked(opSetxattr)()
	st := r.RawFileSystem.SetXAttr(cancel, in, name, value)
	if st.Ok() && name == volume.ACLAccess && in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID != 0 {
		st = r.dropSetgid(cancel, &in.InHeader)
	}
	return st
}

func (r *rawFS) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	defer r.m.asked(opRemovexattr)()
	return r.RawFileSystem.RemoveXAttr(cancel, h, name)
}

func (r *rawFS) dropSetgid(cancel <-chan struct{}, h *fuse.InHeader) fuse.Status {
	var out fuse.AttrOut
	st := r.RawFileSystem.GetAttr(cancel, &fuse.GetAttrIn{InHeader: *h}, &out)
	if !st.Ok() || out.Mode&unix.S_ISGID == 0 {
		return st
	}
	set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{
		InHeader: *h, Valid: fuse.FATTR_MODE, Mode: out.Mode &^ unix.S_ISGID,
	}}
	return r.RawFileSystem.SetAttr(cancel, &set, &out)
}

// masked is the mode of something new in the directory h. While ACLs are on,
// the kernel leaves the umask to us: it counts only where no default ACL says
// what a new entry is allowed; that one is applied by the backing store.
func (r *rawFS) masked(cancel <-chan struct{}, h *fuse.InHeader, mode, umask uint32) uint32 {
	if !r.m.acl || umask == 0 {
		return mode
	}
	if _, st := r.RawFileSystem.GetXAttr(cancel, h, volume.ACLDefault, nil); st.Ok() || st == fuse.Status(unix.ERANGE) {
		return mode
	}
	return mode &^ (umask & 0o777)
}
