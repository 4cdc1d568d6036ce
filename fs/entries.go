package fs

import (
	"context"
	"os"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// owner is whom a new object belongs to: the caller, where the daemon may give
// files away.
func (n *node) owner(ctx context.Context) volume.Owner {
	caller, ok := fuse.FromContext(ctx)
	if !ok || os.Geteuid() != 0 {
		return volume.Owner{}
	}
	return volume.Owner{Set: true, UID: caller.Uid, GID: caller.Gid}
}

var _ = (fusefs.NodeCreater)((*node)(nil))

func (n *node) Create(ctx context.Context, name string, flags uint32, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	child, a, err := n.v.Create(name, mode, n.owner(ctx))
	inode, errno := n.entry(ctx, "create", child, a, err, out)
	if errno == 0 && n.m.shared {
		return n.openMade(ctx, inode, child)
	}
	return inode, nil, fuse.FOPEN_KEEP_CACHE, errno
}

var _ = (fusefs.NodeTmpfiler)((*node)(nil))

func (n *node) Tmpfile(ctx context.Context, flags uint32, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, fusefs.FileHandle, uint32, syscall.Errno) {
	child, a, err := n.v.CreateTemp(mode, n.owner(ctx))
	inode, errno := n.entry(ctx, "tmpfile", child, a, err, out)
	if errno == 0 && n.m.shared {
		return n.openMade(ctx, inode, child)
	}
	return inode, nil, fuse.FOPEN_KEEP_CACHE, errno
}

var _ = (fusefs.NodeMknoder)((*node)(nil))

func (n *node) Mknod(ctx context.Context, name string, mode uint32, dev uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	if kind := mode & unix.S_IFMT; kind == unix.S_IFREG || kind == 0 {
		child, a, err := n.v.Create(name, mode, n.owner(ctx))
		return n.entry(ctx, "mknod", child, a, err, out)
	}
	child, a, err := n.v.Mknod(name, mode, unix.Major(uint64(dev)), unix.Minor(uint64(dev)), n.owner(ctx))
	return n.entry(ctx, "mknod", child, a, err, out)
}

var _ = (fusefs.NodeMkdirer)((*node)(nil))

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	child, a, err := n.v.Mkdir(name, mode, n.owner(ctx))
	return n.entry(ctx, "mkdir", child, a, err, out)
}

var _ = (fusefs.NodeSymlinker)((*node)(nil))

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	child, a, err := n.v.Symlink(name, target, n.owner(ctx))
	return n.entry(ctx, "symlink", child, a, err, out)
}

var _ = (fusefs.NodeLinker)((*node)(nil))

func (n *node) Link(ctx context.Context, target fusefs.InodeEmbedder, name string, out *fuse.EntryOut) (*fusefs.Inode, syscall.Errno) {
	t := target.(*node)
	a, err := n.v.Link(t.v, name)
	if err != nil {
		return nil, n.m.errnoOf("link", err)
	}
	fillAttr(&out.Attr, &a)
	return &t.Inode, 0
}

var _ = (fusefs.NodeUnlinker)((*node)(nil))

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.m.errnoOf("unlink", n.v.Unlink(name))
}

var _ = (fusefs.NodeRmdirer)((*node)(nil))

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.m.errnoOf("rmdir", n.v.Rmdir(name))
}

var _ = (fusefs.NodeRenamer)((*node)(nil))

func (n *node) Rename(ctx context.Context, name string, newParent fusefs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	return n.m.errnoOf("rename", n.v.Rename(name, newParent.(*node).v, newName, flags))
}
