package volume

import (
	"bytes"
	"errors"
	"fmt"

	"kmsfs/crypto"
)

// settle makes a file agree with its record again after a write that the
// backing store refused half-way (no space, a quota, an I/O error). What the
// file held stays: blocks that were rewritten in part are put back, growth is
// cut off, and blocks that did reach the disk whole count as written. It
// returns cause, with what went wrong on the way. The caller holds both locks.
func (w *writer) settle(cause error) error {
	k, fd, size := w.node.vol.backing, w.desc.fd, int64(w.rec.Size)
	var failed []error

	for _, b := range w.old.kept {
		if _, err := pwriteFull(k, fd, b.record, crypto.BlockOffset(b.index)); err != nil {
			failed = append(failed, fmt.Errorf("put back block %d: %w", b.index, err))
		}
	}
	cipherSize, err := crypto.CipherSize(size)
	if err == nil {
		err = k.Ftruncate(fd, cipherSize)
	}
	if err != nil {
		failed = append(failed, fmt.Errorf("cut the file back: %w", err))
	}
	next := w.nextRecord()
	if w.isLogged() {
		next.Generation++ // beyond the one in the log, which is not to be made any more
	}
	if err := w.recount(&next); err != nil {
		failed = append(failed, err)
	}
	w.tags.clear()
	var header [crypto.HeaderSize]byte // the slot holds the change until this is settled
	if err := w.sealRecord(header[:], next); err != nil {
		failed = append(failed, err)
	} else if _, err := pwriteFull(k, fd, header[crypto.RecordOffset:], crypto.RecordOffset); err != nil {
		failed = append(failed, fmt.Errorf("write record: %w", err))
	} else {
		w.rec = next
		if err := w.syncLogged(); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		w.leave(w.slot, &w.change, w.next, cause, errors.Join(failed...))
	}
	return cause
}

// recount replaces, in next, the terms of those blocks of the change that did
// reach the disk, and empties holes that were filled in part.
func (w *writer) recount(next *crypto.Record) error {
	size := int64(w.rec.Size)
	s := getScratch()
	defer s.put()
	for i := w.first; i <= w.last && i < w.old.count; i++ {
		n := crypto.BlockLen(size, i)
		record := s.cipher[:crypto.CipherLen(n)]
		if err := w.readSpan(record, i); err != nil {
			return err
		}
		if !bytes.Equal(record, w.sealed(i, n)) {
			if w.old.tag(i) == ([16]byte{}) {
				if err := w.emptyHole(record, i); err != nil {
					return err
				}
			}
			continue
		}
		w.swapTerm(next, i, record)
	}
	return nil
}

// emptyHole writes zeros over what a failed write left in a hole: only as far
// as there is something, since there is no space for more.
func (w *writer) emptyHole(record []byte, index uint64) error {
	garbage := bytes.TrimRight(record, "\x00")
	if len(garbage) == 0 {
		return nil
	}
	clear(garbage)
	if _, err := pwriteFull(w.node.vol.backing, w.desc.fd, garbage, crypto.BlockOffset(index)); err != nil {
		return fmt.Errorf("empty block %d: %w", index, err)
	}
	return nil
}
