package fs

import (
	"context"
	"sync/atomic"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// node is the kernel's view of a volume.Node. It owns nothing: the bridge may
// make one in vain and drop it again.
type node struct {
	fusefs.Inode
	m *Mount
	v *volume.Node

	first atomic.Int32 // files: whether one was read, see foresight
}

// inode wraps a volume node for the bridge, which takes the one it knows
// already instead if there is one.
func (n *node) inode(ctx context.Context, v *volume.Node) *fusefs.Inode {
	return n.NewInode(ctx, &node{m: n.m, v: v}, stableAttr(v))
}

func stableAttr(v *volume.Node) fusefs.StableAttr {
	return fusefs.StableAttr{Mode: v.Kind(), Ino: v.Ino(), Gen: v.Generation()}
}

var _ = (fusefs.NodeOnForgetter)((*node)(nil))

// OnForget lets go of what the volume holds open for the node.
func (n *node) OnForget() {
	n.first.Store(wasForgotten)
	if n.v.IsDir() {
		n.m.foresight.forgotten(n)
	}
	n.v.Forget()
}

var _ = (fusefs.NodeLookuper)((*node)(nil))

func (n *node) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	child, a, err := n.v.Lookup(name)
	return n.entry(ctx, "lookup", child, a, err, out)
}

// entry answers with an entry that was found or made.
func (n *node) entry(ctx context.Context, op string, child *volume.Node, a volume.Attr, err error, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if err != nil {
		return nil, n.m.errnoOf(op, err)
	}
	fillAttr(&out.Attr, &a)
	return n.inode(ctx, child), 0
}

var _ = (fusefs.NodeGetattrer)((*node)(nil))

func (n *node) Getattr(ctx context.Context, _ fusefs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	a, err := n.v.Attr()
	if err != nil {
		return n.m.errnoOf("getattr", err)
	}
	fillAttr(&out.Attr, &a)
	return 0
}

var _ = (fusefs.NodeStatxer)((*node)(nil))

// Statx is asked only by who wants the birth time.
func (n *node) Statx(ctx context.Context, _ fusefs.FileHandle, _, _ uint32, out *fuse.StatxOut) syscall.Errno {
	a, err := n.v.Attr()
	if err != nil {
		return n.m.errnoOf("statx", err)
	}
	out.Mask = unix.STATX_BASIC_STATS
	if a.Btime != (unix.StatxTimestamp{}) {
		out.Mask |= unix.STATX_BTIME
	}
	out.Ino, out.Size, out.Blocks, out.Blksize = a.Ino, a.Size, a.Blocks, a.Blksize
	out.Mode, out.Nlink, out.Uid, out.Gid = uint16(a.Mode), a.Nlink, a.UID, a.GID
	out.RdevMajor, out.RdevMinor = a.RdevMajor, a.RdevMinor
	out.Atime.FromStatxTimestamp(&a.Atime)
	out.Mtime.FromStatxTimestamp(&a.Mtime)
	out.Ctime.FromStatxTimestamp(&a.Ctime)
	out.Btime.FromStatxTimestamp(&a.Btime)
	return 0
}

var _ = (fusefs.NodeSetattrer)((*node)(nil))

func (n *node) Setattr(_ context.Context, _ fusefs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	c := changeOf(in)
	if c.DropPrivileges && in.Caller.Uid != 0 { // a change of owner by root asks for it, too
		c.InGroup = func(gid uint32) bool { return inGroup(&in.Caller, gid) }
	}
	a, err := n.v.SetAttr(n.m.ctx, c)
	if err != nil {
		return n.m.errnoOf("setattr", err)
	}
	fillAttr(&out.Attr, &a)
	// The bridge sets no timeout here, and every chmod would cost a GETATTR.
	out.SetTimeout(n.m.attrTimeout)
	return 0
}

// changeOf reads a SETATTR request.
func changeOf(in *fuse.SetAttrIn) volume.Change {
	var c volume.Change
	if size, ok := in.GetSize(); ok {
		s := int64(size)
		c.Size = &s
	}
	if mode, ok := in.GetMode(); ok {
		c.Mode = &mode
	}
	if uid, ok := in.GetUID(); ok {
		c.UID = &uid
	}
	if gid, ok := in.GetGID(); ok {
		c.GID = &gid
	}
	switch {
	case in.Valid&fuse.FATTR_ATIME_NOW != 0:
		c.AtimeNow = true
	case in.Valid&fuse.FATTR_ATIME != 0:
		t, _ := in.GetATime()
		c.Atime = &t
	}
	switch {
	case in.Valid&fuse.FATTR_MTIME_NOW != 0:
		c.MtimeNow = true
	case in.Valid&fuse.FATTR_MTIME != 0:
		t, _ := in.GetMTime()
		c.Mtime = &t
	}
	c.DropPrivileges = in.Valid&fuse.FATTR_KILL_SUIDGID != 0
	return c
}

func fillAttr(out *fuse.Attr, a *volume.Attr) {
	out.Ino = a.Ino
	out.Size = a.Size
	out.Blocks = a.Blocks
	out.Blksize = a.Blksize
	out.Mode = a.Mode
	out.Nlink = a.Nlink
	out.Uid, out.Gid = a.UID, a.GID
	out.Rdev = uint32(unix.Mkdev(a.RdevMajor, a.RdevMinor))
	out.Atime, out.Atimensec = uint64(a.Atime.Sec), a.Atime.Nsec
	out.Mtime, out.Mtimensec = uint64(a.Mtime.Sec), a.Mtime.Nsec
	out.Ctime, out.Ctimensec = uint64(a.Ctime.Sec), a.Ctime.Nsec
}

var _ = (fusefs.NodeReadlinker)((*node)(nil))

func (n *node) Readlink(ctx context.Context) ([]byte, syscall.Errno) {
	target, err := n.v.Readlink()
	if err != nil {
		return nil, n.m.errnoOf("readlink", err)
	}
	return []byte(target), 0
}

var _ = (fusefs.NodeStatfser)((*node)(nil))

func (n *node) Statfs(ctx context.Context, out *fuse.StatfsOut) syscall.Errno {
	st, err := n.m.volume.Statfs()
	if err != nil {
		return n.m.errnoOf("statfs", err)
	}
	out.Blocks, out.Bfree, out.Bavail = st.Blocks, st.Bfree, st.Bavail
	out.Files, out.Ffree = st.Files, st.Ffree
	out.Bsize, out.Frsize = uint32(st.Bsize), uint32(st.Frsize)
	out.NameLen = volume.MaxName
	return 0
}
