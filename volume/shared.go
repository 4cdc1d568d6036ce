package volume

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// A shared mount is one of several that have a volume open for writing at the same
// time, on one host or on several that see the same backing directory. It believes
// nothing that it knows from before:
//
//   - Content and record of a file are read and changed under a lock of the backing
//     file (sharedlock.go), whose holder rereads the record first and works on what
//     it says. A change that is not one write announces itself at the end of the
//     file (sharedchange.go), so that whoever takes the lock next can finish it.
//   - Names change under a lock of the whole volume (sharednames.go), with the
//     intent in a page that whoever takes the lock next settles.
//   - There are no redo slots: nothing that a host leaves waits for this host.
//
// Sessions are those of sharedsession.go; programs' own locks those of
// sharedlocks.go.
type sharing struct {
	vol *Volume
	// remote: the store is a FUSE file system, whose daemon talks to others. The
	// kernel here must not answer for it, nor keep what we wrote.
	remote bool

	names sync.Mutex // held with the lock on tree
	tree  int        // descriptor of .kmsfs/redo/<no session>, -1 before open

	locks lockTable
}

// sharedTree is the name of the file in .kmsfs/redo that the lock on names hangs on,
// that of a session that there is not.
var sharedTree = crypto.ID{}.String()

// newSharing makes the volume one of several. The backing directory is open.
func (v *Volume) newSharing() error {
	var st unix.Statfs_t
	if err := v.backing.Statfs(v.rootDesc.fd, &st); err != nil {
		return fmt.Errorf("look at the backing store: %w", err)
	}
	v.shared = &sharing{vol: v, tree: -1, remote: st.Type == unix.FUSE_SUPER_MAGIC}
	v.backing = coherent{Backing: v.backing, direct: v.shared.remote}
	return nil
}

// coherent is a Backing whose answers come from the store, as far as a call can ask
// for that: local stores are no different by it.
type coherent struct {
	Backing
	direct bool // past the page cache; only where any offset may be read so
}

func (c coherent) Openat(dirfd int, name string, flags int, mode uint32) (fd int, err error) {
	if c.direct && flags&(unix.O_PATH|unix.O_DIRECTORY) == 0 {
		if fd, err = c.Backing.Openat(dirfd, name, flags|unix.O_DIRECT, mode); err != unix.EINVAL {
			return fd, err
		}
	}
	return c.Backing.Openat(dirfd, name, flags, mode)
}

// Statx asks the server of a network file system, which also has it take what was
// written before.
func (c coherent) Statx(dirfd int, name string, st *unix.Statx_t) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_STATX_FORCE_SYNC
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if !c.direct {
		return c.Backing.Statx(dirfd, name, st)
	}
	return retry(func() error {
		return unix.Statx(dirfd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_BTIME, st)
	})
}

// How long what does not authenticate is looked at again: another host may be in the
// middle of making, moving or removing it.
const (
	firstPatience = time.Millisecond
	lastPatience  = 64 * time.Millisecond
)

// patiently tries something that reads a node, and again where that fails to
// authenticate, since another host may be about to change it. What is under its name
// no more is unix.ESTALE, upon which the kernel looks the name up again. At last it
// has the lock on names once: what a host left that died meanwhile is settled then.
func (s *sharing) patiently(n *Node, try func() error) error {
	err := try()
	for wait := firstPatience; errors.Is(err, ErrIntegrity); wait *= 2 {
		if n.hasMoved() {
			return unix.ESTALE
		}
		if wait > lastPatience {
			if !s.names.TryLock() { // it may be the caller that has it
				return err
			}
			if serr := s.lockTree(); serr != nil {
				return err
			}
			s.unlockNames()
			return try()
		}
		time.Sleep(wait)
		err = try()
	}
	return err
}

// hasMoved tells whether the node is under none of the names any more that it is known by.
func (n *Node) hasMoved() bool {
	places := n.known()
	for _, p := range places {
		d, err := p.parent.use()
		if err != nil {
			continue
		}
		var st unix.Statx_t
		err = n.vol.backing.Statx(d.fd, p.backing, &st)
		d.release()
		if err != nil && err != unix.ENOENT || err == nil && keyOf(&st) == n.key {
			return false
		}
	}
	return len(places) > 0
}

// settled does something with the node of an entry that must not change meanwhile:
// again, where it turns out that it did.
func (s *sharing) stillAt(d *descriptor, p place, st *unix.Statx_t) bool {
	var now unix.Statx_t
	return s.vol.backing.Statx(d.fd, p.backing, &now) == nil && keyOf(&now) == keyOf(st)
}
