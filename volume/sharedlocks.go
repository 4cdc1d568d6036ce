package volume

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// LockOwner is who has locks of a file on a shared mount, as the kernel tells them
// apart: a process's for POSIX locks, an open file's for those of open file
// descriptions and of flock(2).
type LockOwner struct {
	Owner uint64
	Flock bool
}

// Lock is a range of a file that is locked, both ends included, and how: unix.F_RDLCK,
// F_WRLCK or F_UNLCK.
type Lock struct {
	Kind       int16
	Start, End uint64 // End is at least Start; all of it for flock(2)
}

// lockTable is the programs that have locks. Each has a descriptor of its own of the
// backing file, on which its locks are: so the store tells them apart as it does
// other hosts', and they all go when it is closed.
type lockTable struct {
	mu sync.Mutex
	m  map[*Node]map[LockOwner]*lockHolder
}

type lockHolder struct {
	mu      sync.Mutex
	fd      int
	gone    bool
	writes  bool                // fd is open for writing
	handles map[uint64]struct{} // that locks were taken through
}

const (
	firstLockWait = 500 * time.Microsecond
	lastLockWait  = 25 * time.Millisecond
)

// spanOf is where a lock lies on the backing file: those at offsets that no file has
// content at are cut off. EOVERFLOW beyond.
func (o LockOwner) spanOf(l Lock) (start, n int64, err error) {
	if o.Flock {
		return flockLock, 1, nil
	}
	if l.Start >= ownLocks {
		return 0, 0, unix.EOVERFLOW
	}
	return int64(l.Start), int64(min(l.End, ownLocks-1)-l.Start) + 1, nil
}

// SetLock takes, changes or drops a lock, through an open file of that handle.
// unix.EAGAIN where somebody else has one in the way; with wait it is asked again
// until it is there, or cancel is closed: unix.EINTR. Nobody sees deadlocks.
func (n *Node) SetLock(o LockOwner, handle uint64, l Lock, wait bool, cancel <-chan struct{}) error {
	start, length, err := o.spanOf(l)
	if err != nil {
		return err
	}
	pause := firstLockWait
	for {
		err := n.tryLock(o, handle, l.Kind, start, length)
		if err != unix.EAGAIN || !wait {
			return err
		}
		select {
		case <-cancel:
			return unix.EINTR
		case <-time.After(pause):
		}
		pause = min(2*pause, lastLockWait)
	}
}

func (n *Node) tryLock(o LockOwner, handle uint64, kind int16, start, length int64) error {
	if err := n.vol.begin(ordinary); err != nil {
		return err
	}
	defer n.vol.end()
	h, err := n.lockHolder(o, kind)
	if h == nil || err != nil {
		return err // there is nothing to drop
	}
	defer h.mu.Unlock()
	if err := ofdLock(h.fd, kind, start, length, false); err != nil {
		return err
	}
	if kind != unix.F_UNLCK {
		h.handles[handle] = struct{}{}
	}
	return nil
}

// lockHolder returns the owner's holder, locked, and makes one if it is for a lock.
func (n *Node) lockHolder(o LockOwner, kind int16) (*lockHolder, error) {
	t := &n.vol.shared.locks
	for {
		t.mu.Lock()
		h := t.m[n][o]
		if h == nil {
			if kind == unix.F_UNLCK {
				t.mu.Unlock()
				return nil, nil
			}
			h = &lockHolder{fd: -1, handles: make(map[uint64]struct{})}
			if t.m == nil {
				t.m = make(map[*Node]map[LockOwner]*lockHolder)
			}
			if t.m[n] == nil {
				t.m[n] = make(map[LockOwner]*lockHolder)
			}
			t.m[n][o] = h
		}
		t.mu.Unlock()
		h.mu.Lock()
		if h.gone {
			h.mu.Unlock()
			continue
		}
		if err := h.open(n, kind); err != nil {
			h.mu.Unlock()
			return nil, err
		}
		return h, nil
	}
}

// open opens the holder's descriptor, from the one that the file is open by: the name
// may be gone. Exclusive locks take one for writing, also those of flock(2) on a file
// that is open for reading, so it is one where that can be had.
func (h *lockHolder) open(n *Node, kind int16) error {
	if h.fd >= 0 {
		if kind == unix.F_WRLCK && !h.writes {
			return unix.EBADF // the locks that there are would go with the descriptor
		}
		return nil
	}
	f, err := n.openFile(true)
	if err != nil && kind != unix.F_WRLCK {
		f, err = n.openFile(false)
	}
	if err != nil {
		return err
	}
	defer f.release()
	flags, writes := unix.O_RDONLY, f.desc.writable
	if writes {
		flags = unix.O_RDWR
	}
	fd, err := unix.Open(procDescriptor(f.desc.fd), flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err == unix.EACCES { // its mode forbids us what we have open
		n.mu.Lock()
		fd, err = n.reopenLifted(flags)
		n.mu.Unlock()
	}
	if err == nil {
		h.fd, h.writes = fd, writes
	}
	return err
}

// FindLock finds a lock of somebody else in the way of l; F_UNLCK if there is none.
func (n *Node) FindLock(o LockOwner, l Lock) (Lock, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return Lock{}, err
	}
	defer n.vol.end()
	start, length, err := o.spanOf(l)
	if err != nil {
		return Lock{}, err
	}
	h, err := n.lockHolder(o, unix.F_RDLCK)
	if err != nil {
		return Lock{}, err
	}
	defer h.mu.Unlock()
	found := unix.Flock_t{Type: l.Kind, Start: start, Len: length}
	err = retry(func() error { return unix.FcntlFlock(uintptr(h.fd), unix.F_OFD_GETLK, &found) })
	if err != nil || found.Type == unix.F_UNLCK {
		return Lock{Kind: unix.F_UNLCK}, err
	}
	out := Lock{Kind: found.Type, Start: uint64(found.Start), End: ownEnd}
	if found.Len > 0 && found.Start+found.Len < ownLocks {
		out.End = uint64(found.Start + found.Len - 1)
	}
	return out, nil
}

// ownEnd is the end of a lock on all that follows.
const ownEnd = 1<<63 - 1

// DropLocks drops all locks of an owner: a process has closed the file.
func (n *Node) DropLocks(o LockOwner) {
	n.dropLocks(func(other LockOwner, _ *lockHolder) bool { return other == o })
}

// DropHandle drops the locks that were taken through an open file that is closed now
// by all who had it: a process that took some through it has dropped them before.
func (n *Node) DropHandle(handle uint64) {
	n.dropLocks(func(_ LockOwner, h *lockHolder) bool {
		_, ok := h.handles[handle]
		return ok
	})
}

func (n *Node) dropLocks(which func(LockOwner, *lockHolder) bool) {
	t := &n.vol.shared.locks
	t.mu.Lock()
	if len(t.m[n]) == 0 {
		t.mu.Unlock()
		return
	}
	all := make(map[LockOwner]*lockHolder, len(t.m[n]))
	for o, h := range t.m[n] {
		all[o] = h
	}
	t.mu.Unlock()
	for o, h := range all {
		h.mu.Lock()
		if !h.gone && which(o, h) {
			t.mu.Lock()
			if delete(t.m[n], o); len(t.m[n]) == 0 {
				delete(t.m, n)
			}
			t.mu.Unlock()
			h.drop()
		}
		h.mu.Unlock()
	}
}

// drop drops all locks. On a network file system the end of a descriptor may take its
// time, so they are dropped before.
func (h *lockHolder) drop() {
	h.gone = true
	if h.fd >= 0 {
		_ = ofdLock(h.fd, unix.F_UNLCK, 0, 0, false)
		_ = unix.Close(h.fd)
	}
}

// close drops what is left when the volume is closed.
func (t *lockTable) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, owners := range t.m {
		for _, h := range owners {
			h.mu.Lock()
			h.drop()
			h.mu.Unlock()
		}
	}
	t.m = nil
}
