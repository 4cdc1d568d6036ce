package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// rewriteRecord changes the record alone, for what the user does not see as a
// write: times stay as they were. mutate returns false to change nothing.
func (f *file) rewriteRecord(mutate func(*crypto.Record) bool) error {
	v := f.node.vol
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)

	if err := f.beginWrite(); err != nil {
		return err
	}
	defer f.endWrite()
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
	if f.shared != nil {
		n.vol.log.Warn("a record that could not be written may be of an operation that failed", "path", n.Path(), "cause", cause, "error", err)
		return
	}
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
	if f.shared != nil {
		return nil // one write
	}
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
