package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Requests are not given up when the program that made them is interrupted: Go
// programs are signalled all the time, and a write half-done helps nobody.

var _ = (fusefs.NodeReader)((*node)(nil))

// Read decrypts straight into the reply's buffer.
func (n *node) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, plainOff int64) (fuse.ReadResult, syscall.Errno) {
	got, err := n.v.ReadAt(n.m.ctx, dest, plainOff)
	if err != nil {
		return nil, n.m.errnoOf("read", err)
	}
	return fuse.ReadResultData(dest[:got]), 0
}

var _ = (fusefs.NodeWriter)((*node)(nil))

// Without xattrs the kernel does not know what a write has to drop.
func (n *node) Write(_ context.Context, _ fusefs.FileHandle, data []byte, plainOff int64) (uint32, syscall.Errno) {
	if n.m.noXattr {
		if err := n.v.DropCapability(); err != nil {
			return 0, n.m.errnoOf("write", err)
		}
	}
	done, err := n.v.WriteAt(n.m.ctx, data, plainOff)
	if err != nil && done == 0 {
		return 0, n.m.errnoOf("write", err)
	}
	return uint32(done), 0
}

var _ = (fusefs.NodeFsyncer)((*node)(nil))

// Fsync serves files and directories.
func (n *node) Fsync(_ context.Context, _ fusefs.FileHandle, flags uint32) syscall.Errno {
	const dataOnly = 1 // FUSE_FSYNC_FDATASYNC
	return n.m.errnoOf("fsync", n.v.Sync(flags&dataOnly != 0))
}
