package volume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// file is the state of an open data file. It lives as long as its descriptor
// is open, and outside of a writer's critical section it equals what is on disk.
type file struct {
	node    *Node
	desc    *descriptor
	id      crypto.ID
	records *crypto.RecordCipher

	keys   atomic.Pointer[fileKeys] // found last; they may have been dropped since
	writes atomic.Pointer[writerSession]

	// write makes changes one after the other; content keeps readers out while
	// one reaches the disk. rec changes under both, so either is enough to read it.
	write   sync.Mutex
	content sync.RWMutex
	rec     crypto.Record

	recSealer *crypto.RecordSealer // under write
	mtime     *unix.Timespec       // under write; the backing file's, nil if not known
	tags      tagCache             // under write

	// late is a change that is not made yet, and that rec and reads show as made. It
	// changes under both locks, too.
	late *lateChange

	shared *sharedFile // nil unless the volume is shared

	// accepted: after a power cut something did not match the seal and was
	// accepted, so the counts prove nothing and there is no root any more.
	accepted atomic.Bool
	// lost: its record is damaged, and this state is what fsck could tell without.
	lost bool
}

// writerSession is the sealer that goes with some keys.
type writerSession struct {
	keys   *fileKeys
	sealer *crypto.BlockSealer
}

// openFile returns the node's file state, loading it if need be; the caller
// releases it. With write, the descriptor can be written to.
func (n *Node) openFile(write bool) (*file, error) {
	if n.mode != unix.S_IFREG {
		if n.mode == unix.S_IFDIR {
			return nil, unix.EISDIR
		}
		return nil, unix.EINVAL
	}
	if write && n.vol.readOnly {
		return nil, unix.EROFS
	}
	if n.vol.shared != nil {
		return n.openShared(write)
	}
	if err := n.makeGood(); err != nil && write {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		if err := n.load(write); err != nil {
			return nil, err
		}
	} else if write && !n.desc.writable {
		if err := n.makeWritable(); err != nil {
			return nil, err
		}
	}
	n.desc.take()
	return n.file, nil
}

func (f *file) release() { f.desc.release() }

// wipe overwrites the key of the record. Nobody may use the file state any more.
func (f *file) wipe() {
	if f != nil {
		f.records.Wipe()
	}
}

// load opens the backing file and authenticates its record. The caller holds n.mu.
func (n *Node) load(write bool) error {
	if n.undecipherable.Load() && (n.stray || !n.vol.checking) {
		if n.stray {
			return n.integrity(-1, errors.New("it belongs under another name: a hard link to it was planted, or it was moved"))
		}
		return n.integrity(-1, errors.New("its name does not decrypt"))
	}
	if n.desc != nil && n.desc.data {
		return n.reload(write)
	}
	fd, writable, err := n.openData(write)
	if err != nil {
		return err
	}
	f, err := n.readSeal(fd)
	if err != nil {
		n.vol.backing.Close(fd)
		return err
	}
	n.adopt(f, fd, writable)
	return nil
}

// reload is load for a file that is open still, and whose state was dropped with
// the volume's keys.
func (n *Node) reload(write bool) error {
	if write && !n.desc.writable {
		if err := n.makeWritable(); err != nil {
			return err
		}
	}
	f, err := n.readSeal(n.desc.fd)
	if err != nil {
		return err
	}
	f.desc, n.file = n.desc, f
	return nil
}

// adopt makes f, open as fd, the node's file state. The caller holds n.mu or is
// the only one who knows the node.
func (n *Node) adopt(f *file, fd int, writable bool) {
	n.desc = &descriptor{fd: fd, node: n, writable: writable, data: true, slot: -1}
	n.file = f
	f.desc = n.desc
	n.vol.descriptors.add(n.desc)
}

// openData opens the backing file for reading and writing, or for reading only
// where that is all that is allowed and needed.
func (n *Node) openData(write bool) (fd int, writable bool, err error) {
	if !n.vol.readOnly {
		fd, err = n.reopen(unix.O_RDWR)
		if err == nil {
			return fd, true, nil
		}
		if write && err == unix.EACCES {
			fd, err = n.reopenLifted(unix.O_RDWR)
			return fd, err == nil, err
		}
		if write || (err != unix.EACCES && err != unix.EROFS && err != unix.EPERM && err != unix.ETXTBSY) {
			return -1, false, err
		}
	}
	fd, err = n.reopen(unix.O_RDONLY)
	if err == unix.EACCES {
		fd, err = n.reopenLifted(unix.O_RDONLY)
	}
	return fd, false, err
}

// makeWritable puts a descriptor that can be written to in the place of one
// that can only be read; calls that are using it are not disturbed.
func (n *Node) makeWritable() error {
	fd, writable, err := n.openData(true)
	if err != nil {
		return err
	}
	defer n.vol.backing.Close(fd)
	if !writable {
		return unix.EROFS
	}
	if err := unix.Dup3(fd, n.desc.fd, unix.O_CLOEXEC); err != nil {
		return err
	}
	n.desc.writable = true
	return nil
}

// unlock returns the file's content keys, asking the KMS if they are not cached.
// The caller releases them.
func (f *file) unlock(ctx context.Context) (*fileKeys, error) {
	if k := f.keys.Load(); k != nil && k.acquire() {
		return k, nil
	}
	v := f.node.vol
	ctx, cancel := context.WithTimeout(ctx, v.kmsDeadline)
	defer cancel()
	v.ahead.ask(f.node, f.id)
	k, err := v.keys.get(ctx, f.id, f.node)
	if err != nil {
		var bad *sidecarError
		if errors.As(err, &bad) {
			return nil, f.node.integrity(-1, err)
		}
		return nil, fmt.Errorf("unlock %s: %w", f.node.Path(), err)
	}
	f.keys.Store(k)
	return k, nil
}

// blockSealer returns the writer session's sealer. There is one session for as
// long as the file state and its keys live.
func (f *file) blockSealer(k *fileKeys) (*crypto.BlockSealer, error) {
	old := f.writes.Load()
	if old != nil && old.keys == k {
		return old.sealer, nil
	}
	s, err := k.blocks.NewSealer(f.node.vol.random)
	if err != nil {
		return nil, err
	}
	fresh := &writerSession{k, s}
	if !f.writes.CompareAndSwap(old, fresh) {
		if now := f.writes.Load(); now.keys == k {
			return now.sealer, nil
		}
	}
	return s, nil
}

// sealRecord seals r into the header at dst. The caller holds f.write.
func (f *file) sealRecord(dst []byte, r crypto.Record) error {
	if f.accepted.Load() {
		r.Stored = min(r.Stored, crypto.BlockCount(int64(r.Size)))
	}
	if f.recSealer == nil {
		s, err := f.records.NewSealer(f.node.vol.random)
		if err != nil {
			return err
		}
		f.recSealer = s
	}
	return f.recSealer.Seal(dst, r)
}

// knowTime makes sure that f.mtime is the backing file's. The caller holds f.write.
func (f *file) knowTime() error {
	if f.mtime != nil {
		return nil
	}
	var st unix.Statx_t
	if err := f.node.vol.backing.Statx(f.desc.fd, "", &st); err != nil {
		return err
	}
	f.mtime = &unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}
	return nil
}

// putTimeBack sets the modification time that a change of ours moved.
func (f *file) putTimeBack(mtime unix.Timespec) error {
	return f.node.vol.backing.Utimensat(f.desc.fd, "", &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime})
}
