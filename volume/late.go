package volume

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// A late change is one that the backing store refused half-way and did not let
// us take back either: a disk that fails all writes for a while. Its slot stays
// armed. Whoever uses the file tries to make it whole first. As long as that
// fails the file is read as if it were made, since the slot has what the store
// lacks, and it cannot be changed. At last the next mount makes it, for which this
// one does not end cleanly.
type lateChange struct {
	slot   *slot
	change change
	next   crypto.Record // what the file's record will be; not with slotMode
	cause  error
	made   bool // under lateChanges.mu
}

// lateChanges are those of a mount. Locks: mu is taken after those of a file.
type lateChanges struct {
	count atomic.Int32
	mu    sync.Mutex
	list  []*lateChange
}

// maxLate leaves slots for others.
const maxLate = maxSlots / 2

// keep takes the slot of a change over from its owner, who goes on as if it had
// been dropped. It tells whether there was room.
func (v *Volume) keep(late *lateChange) bool {
	if v.shared != nil {
		return false // the others would not know
	}
	l := &v.late
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == maxLate {
		return false
	}
	v.redo.hold(late.slot, true)
	l.list = append(l.list, late)
	l.count.Add(1)
	return true
}

// of is the late change of the content of an inode, or nil.
func (l *lateChanges) of(ino uint64) *lateChange {
	if l.count.Load() == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.list {
		if c.change.ino == ino && c.change.flags&slotMode == 0 {
			return c
		}
	}
	return nil
}

// preadLate is preadFull for a file that may have a late change, which it reads as
// if it were made.
func (v *Volume) preadLate(late *lateChange, fd int, b []byte, cipherOff int64) (int, error) {
	if late == nil {
		return preadFull(v.backing, fd, b, cipherOff)
	}
	v.late.mu.Lock() // else it may be made, and its slot be another's
	defer v.late.mu.Unlock()
	n, err := preadFull(v.backing, fd, b, cipherOff)
	if err != nil || late.made {
		return n, err
	}
	clear(b[n:]) // the file may be too short yet
	late.change.cover(b, cipherOff, late.slot.payload())
	return len(b), nil
}

// cover puts into b, read from cipherOff on, what the change writes there.
func (c *change) cover(b []byte, cipherOff int64, payload []byte) {
	part := func(from, n int64) (dst []byte, skip int64) {
		start, end := max(from, cipherOff), min(from+n, cipherOff+int64(len(b)))
		if start >= end {
			return nil, 0
		}
		return b[start-cipherOff : end-cipherOff], start - from
	}
	for _, seg := range c.segments {
		dst, skip := part(seg.cipherOff, int64(seg.len))
		copy(dst, payload[seg.from+int(skip):])
	}
	if c.flags&slotPunch != 0 {
		dst, _ := part(c.punch.cipherOff, c.punch.len)
		clear(dst)
	}
}

// whole is an error as long as the file has a late change: two changes of one file
// that are armed would have no order. The caller holds f.write or f.content.
func (f *file) whole() error {
	if f.late == nil {
		return nil
	}
	v := f.node.vol
	v.late.mu.Lock()
	defer v.late.mu.Unlock()
	if f.late.made {
		return nil
	}
	return fmt.Errorf("an earlier change that failed must be made first: %w", f.late.cause)
}

// makeGood makes the late changes of a node, if they can be made by now.
func (n *Node) makeGood() error {
	v := n.vol
	if v.late.count.Load() == 0 {
		return nil
	}
	n.mu.Lock()
	f, d := n.file, n.desc
	if d != nil {
		d.take()
		defer d.release()
	}
	n.mu.Unlock()
	if f != nil {
		f.write.Lock()
		defer f.write.Unlock()
		f.content.Lock()
		defer f.content.Unlock()
	}
	return v.makeLate(func(l *lateChange) (int, bool) {
		if l.change.ino != n.key.ino {
			return -1, false
		}
		if f == nil || !d.writable || l.change.file != f.id {
			return -1, true
		}
		fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return -1, true
		}
		return fd, true
	}, func(l *lateChange) {
		if f != nil && f.late == l {
			f.late, f.mtime = nil, nil
		}
	})
}

// makeAllLate makes all late changes that can be made by now.
func (v *Volume) makeAllLate() error {
	if v.late.count.Load() == 0 {
		return nil
	}
	for _, n := range v.descriptors.nodes() {
		if err := n.makeGood(); err != nil {
			return err
		}
	}
	return v.makeLate(func(*lateChange) (int, bool) { return -1, true }, func(*lateChange) {})
}

// makeLate makes those late changes that wanted says, on the descriptor that it
// gives, or, with -1, on one of their file's path; made is told of each.
func (v *Volume) makeLate(wanted func(*lateChange) (fd int, ok bool), made func(*lateChange)) error {
	v.late.mu.Lock()
	defer v.late.mu.Unlock()
	var errs []error
	left := v.late.list[:0]
	for _, l := range v.late.list {
		fd, ok := wanted(l)
		var err error
		if !ok {
			left = append(left, l)
			continue
		}
		if fd < 0 {
			fd, err = v.findChanged(&l.change)
		}
		if err == nil {
			err = v.finish(fd, l.slot.payload(), &l.change)
			if err == nil && l.change.flags&slotLogged != 0 {
				err = v.backing.Fdatasync(fd)
			}
			v.backing.Close(fd)
		} else if err == unix.ENOENT {
			err = nil // the file is gone
		}
		if err != nil {
			errs = append(errs, err)
			left = append(left, l)
			continue
		}
		made(l)
		l.made = true
		v.redo.hold(l.slot, false)
		v.redo.drop(l.slot)
		v.late.count.Add(-1)
	}
	v.late.list = left
	return errors.Join(errs...)
}

// settleAll makes all late changes and settles all intents, before the end. What
// is still half done then, the next mount finishes: this one ends as if killed.
func (v *Volume) settleAll() error {
	if err := v.makeAllLate(); err != nil {
		return fmt.Errorf("make a change that had failed: %w", err)
	}
	if !v.settleIntents() {
		return errors.New("operations on names are half done: the next mount settles them")
	}
	return nil
}
