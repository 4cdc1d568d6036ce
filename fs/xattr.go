package fs

import (
	"context"
	"strings"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// Who may read and set which attributes is checked by the kernel before it
// asks; only what a list shows is ours.

var _ = (fusefs.NodeGetxattrer)((*node)(nil))

func (n *node) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if volume.IsACL(name) && !n.m.acl {
		return 0, unix.EOPNOTSUPP
	}
	value, err := n.v.Getxattr(name)
	if err == unix.EOPNOTSUPP && volume.IsACL(name) {
		// For any other answer the kernel would deny all access.
		err = unix.ENODATA
	}
	if err != nil {
		return 0, n.m.errnoOf("getxattr", err)
	}
	return answer(dest, value)
}

// answer copies what there is room for, or says how much is needed.
func answer(dest, value []byte) (uint32, syscall.Errno) {
	if len(value) > len(dest) {
		return uint32(len(value)), unix.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

var _ = (fusefs.NodeSetxattrer)((*node)(nil))

func (n *node) Setxattr(_ context.Context, name string, value []byte, flags uint32) syscall.Errno {
	if volume.IsACL(name) && !n.m.acl {
		return unix.EOPNOTSUPP // nobody would enforce it
	}
	return n.m.errnoOf("setxattr", n.v.Setxattr(name, value, int(flags)))
}

var _ = (fusefs.NodeRemovexattrer)((*node)(nil))

func (n *node) Removexattr(_ context.Context, name string) syscall.Errno {
	if volume.IsACL(name) && !n.m.acl {
		return unix.EOPNOTSUPP
	}
	return n.m.errnoOf("removexattr", n.v.Removexattr(name))
}

var _ = (fusefs.NodeListxattrer)((*node)(nil))

// Listxattr shows trusted.* to root alone, as local file systems do.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	names, err := n.v.Listxattr()
	if err != nil {
		return 0, n.m.errnoOf("listxattr", err)
	}
	caller, ok := fuse.FromContext(ctx)
	trusted := ok && caller.Uid == 0
	var list []byte
	for _, name := range names {
		if volume.IsACL(name) && !n.m.acl || strings.HasPrefix(name, "trusted.") && !trusted {
			continue
		}
		list = append(append(list, name...), 0)
	}
	return answer(dest, list)
}
