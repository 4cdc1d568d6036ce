package volume

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// descriptor is a node's open backing descriptor: O_PATH for directories,
// O_RDWR (O_RDONLY where that is not allowed) for data files. It is closed by
// the set when it has not been used for a while, or by Node.Forget.
type descriptor struct {
	fd       int
	node     *Node
	writable bool
	data     bool         // of a data file, open for its content
	pinned   bool         // of an unlinked file: never closed by the set
	refs     atomic.Int32 // calls that are using fd; taken under node.mu
	used     atomic.Bool  // since the clock hand passed
	forget   atomic.Bool  // Node.Forget came while in use
	slot     int          // index in the set's ring, -1 if none; under the set's mu
}

// take marks the descriptor as used by a call. The caller holds node.mu.
func (d *descriptor) take() {
	d.refs.Add(1)
	d.used.Store(true)
}

// release ends a call's use of the descriptor.
func (d *descriptor) release() {
	if d.refs.Add(-1) == 0 && d.forget.Load() && d.forget.Swap(false) {
		d.node.Forget()
	}
}

// descriptorSet bounds how many backing descriptors are open at once. It is a
// clock: descriptors that were used since the hand last passed get another
// round, those in use are never closed. When all are in use the bound gives way.
type descriptorSet struct {
	backing Backing
	mu      sync.Mutex
	ring    []*descriptor
	hand    int
	limit   int
}

// add puts a newly opened descriptor into the set, closing an unused one if the
// set is full. The caller holds d.node.mu; other nodes' locks are only tried.
func (s *descriptorSet) add(d *descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) >= s.limit {
		if i, ok := s.evict(); ok {
			d.slot = i
			s.ring[i] = d
			return
		}
	}
	d.slot = len(s.ring)
	s.ring = append(s.ring, d)
}

// evict closes one descriptor and returns its place in the ring.
func (s *descriptorSet) evict() (int, bool) {
	for range 2 * len(s.ring) {
		i := s.hand
		s.hand = (s.hand + 1) % len(s.ring)
		d := s.ring[i]
		if d.used.Swap(false) || d.refs.Load() != 0 || !d.node.mu.TryLock() {
			continue
		}
		idle := d.refs.Load() == 0 && d.node.desc == d
		if idle {
			d.node.file.wipe()
			d.node.desc, d.node.file = nil, nil
			d.slot = -1
		}
		d.node.mu.Unlock()
		if idle {
			_ = s.backing.Close(d.fd)
			return i, true
		}
	}
	return 0, false
}

// remove takes a descriptor out of the set; closing it is the caller's.
func (s *descriptorSet) remove(d *descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.slot < 0 {
		return
	}
	last := len(s.ring) - 1
	s.ring[d.slot] = s.ring[last]
	s.ring[d.slot].slot = d.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	if s.hand >= last {
		s.hand = 0
	}
	d.slot = -1
}

// nodes returns those whose descriptors are open.
func (s *descriptorSet) nodes() []*Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Node, 0, len(s.ring))
	for _, d := range s.ring {
		out = append(out, d.node)
	}
	return out
}

// closeAll closes every descriptor, when the volume is closed.
func (s *descriptorSet) closeAll() {
	s.mu.Lock()
	ring := s.ring
	s.ring, s.hand = nil, 0
	s.mu.Unlock()
	for _, d := range ring {
		d.node.mu.Lock()
		if d.node.desc == d {
			d.node.file.wipe()
			d.node.desc, d.node.file = nil, nil
		}
		d.node.mu.Unlock()
		_ = s.backing.Close(d.fd)
	}
}

// use returns the directory's O_PATH descriptor; the caller releases it.
func (n *Node) use() (*descriptor, error) {
	n.mu.Lock()
	if d := n.desc; d != nil {
		d.take()
		n.mu.Unlock()
		return d, nil
	}
	n.mu.Unlock()
	above, err := n.openAbove()
	if err != nil {
		return nil, err
	}
	if above != nil {
		defer above.release()
	}
	return n.open()
}

// open is use for a directory whose parent is open, or nearly.
func (n *Node) open() (*descriptor, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.desc == nil {
		if n.mode != unix.S_IFDIR {
			return nil, unix.ENOTDIR
		}
		fd, err := n.reopen(unix.O_PATH | unix.O_DIRECTORY)
		if err != nil {
			return nil, err
		}
		n.keepOpen(fd)
	}
	n.desc.take()
	return n.desc, nil
}

// keepOpen makes fd the directory's descriptor. The caller holds n.mu.
func (n *Node) keepOpen(fd int) {
	n.desc = &descriptor{fd: fd, node: n, slot: -1}
	n.vol.descriptors.add(n.desc)
}

// openAbove opens the directories above the node that are not open, from the top
// down and each from the one before, which alone is held meanwhile: a tree may be
// deeper than descriptors can be open. It returns that of the last, nil if all are.
func (n *Node) openAbove() (last *descriptor, err error) {
	var closed []*Node
	rooted := false
	for p := range n.climb() {
		if rooted = p.parent.isOpen(); rooted {
			break
		}
		closed = append(closed, p.parent)
	}
	if !rooted && len(closed) > 0 {
		return nil, unix.ENOENT // one is unlinked, or they are in a circle
	}
	for _, m := range slices.Backward(closed) {
		d, err := m.open()
		if last != nil {
			last.release()
		}
		if last = d; err != nil {
			return nil, err
		}
	}
	return last, nil
}

// isOpen tells whether a directory is open. Of one that is busy it may say that it
// is not.
func (n *Node) isOpen() bool {
	if n == n.vol.root {
		return true
	}
	if !n.mu.TryLock() {
		return false
	}
	defer n.mu.Unlock()
	return n.desc != nil
}

// comeBack opens the directory from one in it that was gone through meanwhile, if
// it is not open any more. So a walk through a deep tree opens nothing from the top.
func (n *Node) comeBack(child *Node) {
	child.mu.Lock()
	d := child.desc
	if d == nil || child.mode != unix.S_IFDIR {
		child.mu.Unlock()
		return
	}
	d.take()
	child.mu.Unlock()
	defer d.release()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.desc != nil {
		return
	}
	if fd, err := openSame(n.vol.backing, d.fd, "..", n.key); err == nil {
		n.keepOpen(fd)
	}
}

// reopen opens the node's inode by one of its names and makes sure that it is
// that inode. The caller holds n.mu.
func (n *Node) reopen(flags int) (int, error) {
	var lastErr error = unix.ENOENT
	for _, p := range slices.Backward(n.known()) {
		d, err := p.parent.use()
		if err != nil {
			lastErr = err
			continue
		}
		fd, err := n.openAt(d.fd, p.backing, flags)
		d.release()
		if err == nil {
			return fd, nil
		}
		lastErr = err
	}
	return -1, lastErr
}

// openAt opens name below dirfd if it is the node's inode.
func (n *Node) openAt(dirfd int, name string, flags int) (int, error) {
	k := n.vol.backing
	if n.mode == unix.S_IFREG {
		flags |= unix.O_NONBLOCK // somebody may have put a FIFO there
	}
	fd, err := k.Openat(dirfd, name, flags, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Statx_t
	if err := k.Statx(fd, "", &st); err != nil {
		k.Close(fd)
		return -1, err
	}
	if keyOf(&st) != n.key || uint32(st.Mode)&unix.S_IFMT != n.mode {
		k.Close(fd)
		return -1, unix.ENOENT
	}
	return fd, nil
}

// procDescriptor is the magic link to an open descriptor of this process.
func procDescriptor(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// raiseDescriptorLimit raises RLIMIT_NOFILE to its hard limit and returns how
// many backing descriptors the set may keep open below it.
func raiseDescriptorLimit() (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("read descriptor limit: %w", err)
	}
	if lim.Cur < lim.Max {
		lim.Cur = lim.Max
		// A refusal only means fewer descriptors.
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &lim)
		_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &lim)
	}
	limit := int(max(16, min(lim.Cur/2, 1<<14)))
	growDescriptorTable(min(limit+limit/2, int(min(lim.Cur, 1<<20))-1))
	return limit, nil
}

// growDescriptorTable makes the kernel's table of this process's descriptors
// large enough for the number n. It doubles by itself when it is full, and then
// whoever opens a file waits for a grace period of RCU, 10 to 20 ms, since the
// threads share the table; this way one wait, at the mount, is all. Failing
// costs that alone.
func growDescriptorTable(n int) {
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, n); err == nil {
		_ = unix.Close(fd)
	}
}
