package fs

import (
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"

	"kmsfs/volume"
)

// OPENDIR is answered ENOSYS once, as OPEN is; the kernel then never asks again, nor
// for RELEASEDIR, and READDIRPLUS has no handle. Each request opens the directory for
// itself and goes to its position, so the backing store's positions must be good for
// that; where they are not, directories are opened.

// opensNoDirs says whether the kernel may leave OPENDIR out.
func (m *Mount) opensNoDirs() bool {
	return !m.keepDirs && m.server.KernelSettings().Flags64()&fuse.CAP_NO_OPENDIR_SUPPORT != 0
}

// unopened are the directories that are being listed, by the kernel's number: what the
// next request is to know of the ones before. Who lists to the end removes them, or
// the kernel when it forgets the directory.
type unopened struct {
	mu   sync.Mutex
	byID map[uint64]*dirHandle
}

func (u *unopened) get(m *Mount, id uint64) (*dirHandle, fuse.Status) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if h := u.byID[id]; h != nil {
		return h, fuse.OK
	}
	dir := m.directory(id)
	if dir == nil {
		return nil, fuse.Status(fuse.EBADF)
	}
	if u.byID == nil {
		u.byID = make(map[uint64]*dirHandle)
	}
	h := newDirHandle(m, dir)
	u.byID[id] = h
	return h, fuse.OK
}

// drop says that a directory is not listed any more.
func (u *unopened) drop(m *Mount, id uint64) {
	u.mu.Lock()
	h := u.byID[id]
	delete(u.byID, id)
	u.mu.Unlock()
	if h != nil {
		m.lookers.remove(id, h)
	}
}

// directory is the node of what the kernel calls by a number.
func (m *Mount) directory(id uint64) *volume.Node {
	if id == rootID {
		return m.volume.Root()
	}
	if key, ok := m.known.key(id); ok {
		return m.volume.Held(key.ino, key.gen)
	}
	return nil
}
