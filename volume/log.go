package volume

import (
	"crypto/sha256"
	"fmt"

	"kmsfs/crypto"
)

// The log of a strict mount. A block that is overwritten in place can be torn by a
// power cut, and then authenticates neither as the old one nor as the new one. So
// a strict mount makes the change's redo slot durable first, then the change, and
// both before the next change of that file: two flushes for a request that
// overwrites. After a power cut the next mount makes again what lies whole in the
// slots. New blocks behind the end of a file, and the record, which one sector
// holds, need no log.
//
// A slot is given back without another flush. So it may be found armed though its
// change is durable, and others after it: then the file's record is of a later
// generation, and the slot is passed over.

// logOverwrite marks the writer's change as one to be logged, on a strict mount.
func (w *writer) logOverwrite() {
	if w.node.vol.strict {
		w.change.flags |= slotLogged
	}
}

func (w *writer) isLogged() bool { return w.change.flags&slotLogged != 0 }

// syncLogged makes durable what the log stood for, so that its slot is free.
func (w *writer) syncLogged() error {
	if !w.isLogged() {
		return nil
	}
	if err := w.node.vol.backing.Fdatasync(w.desc.fd); err != nil {
		return fmt.Errorf("sync what was overwritten: %w", err)
	}
	return nil
}

// carryOut arms the writer's change and makes it; after is called when it is made.
// The caller holds file.write.
func (w *writer) carryOut(next crypto.Record, after func()) error {
	if w.shared != nil {
		return w.carryOutShared(next, after)
	}
	w.next = next
	if err := w.arm(w.slot, &w.change); err != nil {
		return err
	}
	defer w.slot.disarm()
	if err := w.make(next, after); err != nil {
		return err
	}
	if w.change.flags&slotTimes != 0 {
		if err := w.putTimeBack(*w.mtime); err != nil {
			return err
		}
	}
	return w.syncLogged()
}

// make is carryOut for a change that is armed.
func (w *writer) make(next crypto.Record, after func()) error {
	w.content.Lock()
	defer w.content.Unlock()
	if err := w.apply(w.slot, &w.change); err != nil {
		return w.settle(err)
	}
	w.rec = next
	after()
	return nil
}

// untilAppend is how much of a write of n bytes at plainOff to do in one change: on
// a strict mount, what goes behind the last block is a change of its own, which
// needs no log.
func (f *file) untilAppend(plainOff int64, n int) int {
	if !f.node.vol.strict {
		return n
	}
	edge := int64(crypto.BlockCount(f.size())) * crypto.BlockSize
	if plainOff < edge && edge-plainOff < int64(n) {
		return int(edge - plainOff)
	}
	return n
}

// flush makes the slots durable, as they are.
func (r *redoFile) flush() error {
	if err := r.backing.Fdatasync(r.fd); err != nil {
		return fmt.Errorf("sync redo slots: %w", err)
	}
	return nil
}

// digest is the SHA-256 of the change's segments in a slot's payload.
func (c *change) digest(payload []byte) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, seg := range c.segments {
		h.Write(payload[seg.from : seg.from+seg.len])
	}
	h.Sum(sum[:0])
	return sum
}

// isStale tells whether the file open as fd has seen other changes since c, which is
// durable then, or was given up.
func (v *Volume) isStale(c *change, fd int, payload []byte) (bool, error) {
	var now [crypto.HeaderSize]byte
	if n, err := preadFull(v.backing, fd, now[:], 0); err != nil || n < len(now) {
		return false, err
	}
	logged := now // of the same file, with another record
	copy(logged[crypto.RecordOffset:], payload[slotRecordAt+crypto.RecordOffset:])
	records := crypto.NewRecordCipher(v.vk, v.id, c.file)
	defer records.Wipe()
	change, err := records.Open(logged[:])
	if err != nil {
		return true, nil // we made no such change
	}
	last, err := records.Open(now[:])
	return err == nil && last.Generation >= change.Generation && now != logged, nil
}
