package fs

import (
	"context"
	"syscall"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Requests are not given up when the program that made them is interrupted: Go
// programs are signalled all the time, and a write half-done helps nobody.

var _ = (fusefs.NodeReader)((*node)(nil))

// Read decrypts straight into the reply's buffer.
func (n *node) Read(_ context.Context, _ fusefs.FileHandle, dest []byte, plainOff int64) (fuse.ReadResult, syscall.Errno) {
	n.reads()
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
	write := n.v.WriteAt
	if n.m.writeback {
		write = n.v.WriteBack
	}
	done, err := write(n.m.ctx, data, plainOff)
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

var _ = (fusefs.NodeAllocater)((*node)(nil))

func (n *node) Allocate(_ context.Context, _ fusefs.FileHandle, plainOff, length uint64, mode uint32) syscall.Errno {
	return n.m.errnoOf("fallocate", n.v.Allocate(n.m.ctx, int64(plainOff), int64(length), mode))
}

var _ = (fusefs.NodeLseeker)((*node)(nil))

// Lseek finds data and holes. The kernel asks without having sent its dirty
// pages, so they are called for first: they would be taken for holes.
func (n *node) Lseek(_ context.Context, _ fusefs.FileHandle, plainOff uint64, whence uint32) (uint64, syscall.Errno) {
	if n.m.writeback {
		n.NotifyContent(0, 0) // ENOENT when nothing is cached
	}
	var at int64
	var err error
	switch whence {
	case unix.SEEK_DATA:
		at, err = n.v.SeekData(int64(plainOff))
	case unix.SEEK_HOLE:
		at, err = n.v.SeekHole(int64(plainOff))
	default:
		return 0, syscall.EINVAL
	}
	return uint64(at), n.m.errnoOf("lseek", err)
}
