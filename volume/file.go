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

// rewriteRecord changes the record alone, for what the user does not see as a
// write: times stay as they were. mutate returns false to change nothing.
func (f *file) rewriteRecord(mutate func(*crypto.Record) bool) error {
	v := f.node.vol
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)

	f.write.Lock()
	defer f.write.Unlock()
	return f.rewriteIn(s, mutate)
}

// rewriteIn is rewriteRecord for who has a slot, and holds f.write.
func (f *file) rewriteIn(s *slot, mutate func(*crypto.Record) bool) error {
	v := f.node.vol
	next := f.nextRecord()
	if !mutate(&next) {
		return nil
	}
	pay := s.payload()
	if err := f.sealRecord(pay[:crypto.HeaderSize], next); err != nil {
		return err
	}
	var st unix.Statx_t
	if err := v.backing.Statx(f.desc.fd, "", &st); err != nil {
		return err
	}
	record := segment{crypto.RecordOffset, crypto.RecordOffset, crypto.HeaderSize - crypto.RecordOffset}
	c := change{
		flags: slotTimes, atime: st.Atime, mtime: st.Mtime, segments: []segment{record},
	}
	if st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		c.flags |= slotSpecial
		c.mode = uint32(st.Mode) & 0o7777
	}
	if err := f.arm(s, &c); err != nil {
		return err
	}
	defer s.disarm()

	f.content.Lock()
	defer f.content.Unlock()
	if err := v.finish(f.desc.fd, pay, &c); err != nil {
		return f.takeBack(s, &c, next, err)
	}
	f.rec = next
	return nil
}

// takeBack writes the record again that a failed rewriteRecord was to replace.
// It returns cause. The caller holds both locks.
func (f *file) takeBack(s *slot, c *change, next crypto.Record, cause error) error {
	if c.flags&slotSpecial == 0 && f.isOnDisk(f.rec) {
		return cause
	}
	var header [crypto.HeaderSize]byte
	back, before := *c, f.nextRecord()
	err := f.sealRecord(header[:], before)
	if err == nil {
		err = f.node.vol.finish(f.desc.fd, header[:], &back)
	}
	if err == nil {
		f.rec = before
		return cause
	}
	f.leave(s, c, next, cause, err)
	return cause
}

// leave says that a change is half made, and keeps it for later. The caller holds
// both locks.
func (f *file) leave(s *slot, c *change, next crypto.Record, cause, err error) {
	n := f.node
	c.file, c.ino = f.id, n.key.ino
	late := &lateChange{slot: s, change: *c, next: next, cause: cause}
	if n.vol.keep(late) {
		f.rec, f.late = next, late
		f.tags.clear()
		n.vol.log.Warn("a change that failed is made once the store is well again", "path", n.Path(), "cause", cause, "error", err)
		return
	}
	n.vol.log.Error("a failed write left damage", "path", n.Path(), "backing", n.BackingPath(), "cause", cause, "error", err)
}

// nextRecord begins the record that will follow the one now on disk.
func (f *file) nextRecord() crypto.Record {
	next := f.rec
	next.Generation++
	if f.accepted.Load() {
		next.Flags |= crypto.FlagRootAbsent
		next.Root = [16]byte{}
	}
	return next
}

// arm publishes a change of the file. It must be disarmed before f.write is
// unlocked: two armed changes of one file would have no order. An unlinked file
// has nothing to be recovered.
//
// A change that is to be logged is durable in its slot when this returns, or is
// an error, and not armed.
func (f *file) arm(s *slot, c *change) error {
	if err := f.whole(); err != nil {
		return err
	}
	if _, linked := f.node.at(); !linked {
		c.flags &^= slotLogged
		return nil
	}
	c.file, c.ino, c.path = f.id, f.node.key.ino, f.node.BackingPath()
	s.arm(f.node.vol.redo.session, c)
	if c.flags&slotLogged == 0 {
		return nil
	}
	if err := f.node.vol.redo.flush(); err != nil {
		s.disarm()
		return err
	}
	return nil
}

// apply makes a change from its slot's payload, but for what it puts back.
func (f *file) apply(s *slot, c *change) error {
	return f.node.vol.apply(f.desc.fd, s.payload(), c)
}

// apply writes a change's segments to the file that is open as fd, and cuts it.
func (v *Volume) apply(fd int, payload []byte, c *change) error {
	k := v.backing
	for _, seg := range c.segments {
		if _, err := pwriteFull(k, fd, payload[seg.from:seg.from+seg.len], seg.cipherOff); err != nil {
			return err
		}
	}
	if c.flags&slotPunch != 0 {
		if err := k.Fallocate(fd, punchHole, c.punch.cipherOff, c.punch.len); err != nil {
			return err
		}
	}
	if c.flags&slotTruncate != 0 {
		return k.Ftruncate(fd, c.size)
	}
	return nil
}
