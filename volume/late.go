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
// armed. It is made whole before the file is used again; failing that, by the
// next mount, for which this one does not end cleanly.
type lateChange struct {
	slot   *slot
	change change
	next   crypto.Record // what the file's record will be; not with slotMode
}

// lateChanges are those of a mount. Locks: mu is taken after those of a file.
type lateChanges struct {
	count atomic.Int32
	mu    sync.Mutex
	list  []lateChange
}

// maxLate leaves slots for others.
const maxLate = maxSlots / 2

// keep takes a slot over from its owner, who goes on as if it had been dropped.
// It tells whether there was room.
func (v *Volume) keep(s *slot, c change, next crypto.Record) bool {
	l := &v.late
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.list) == maxLate {
		return false
	}
	v.redo.hold(s, true)
	l.list = append(l.list, lateChange{s, c, next})
	l.count.Add(1)
	return true
}

// makeGood makes the late changes of a node, before it is used.
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
		if f == nil || !d.writable {
			return -1, true
		}
		fd, err := unix.FcntlInt(uintptr(d.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return -1, true
		}
		return fd, true
	}, func(l *lateChange) {
		if f != nil && l.change.flags&slotMode == 0 {
			f.rec, f.mtime = l.next, nil
			f.tags.clear()
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
		fd, ok := wanted(&l)
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
		made(&l)
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
