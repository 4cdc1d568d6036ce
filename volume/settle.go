package volume

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// settle makes a file agree with its record again after a write that the
// backing store refused half-way (no space, a quota, an I/O error). What the
// file held stays: blocks that were rewritten in part are put back, growth is
// cut off, and blocks that did reach the disk whole count as written. What the
// store refuses to take back as well is a late change. It returns cause. The
// caller holds both locks.
func (w *writer) settle(cause error) error {
	if err := w.undo(); err != nil {
		w.leave(w.slot, &w.change, w.next, cause, err)
	}
	return cause
}

// undo is settle, up to the first thing that the store refuses. It writes only what
// is not there any more: a store that copies on write may have no room even for the
// same bytes, and one that turned read-only takes nothing.
func (w *writer) undo() error {
	for _, b := range w.old.kept {
		if err := w.putBack(b); err != nil {
			return fmt.Errorf("put back block %d: %w", b.index, err)
		}
	}
	if err := w.cutBack(); err != nil {
		return fmt.Errorf("cut the file back: %w", err)
	}
	next := w.nextRecord()
	if err := w.recount(&next); err != nil {
		return err
	}
	w.tags.clear()
	same := next
	same.Generation = w.rec.Generation
	// The one in the log is not to be made any more: a record beyond it says so.
	if w.isLogged() {
		next.Generation++
	} else if same == w.rec && w.isOnDisk(w.rec) {
		return nil
	}
	var header [crypto.HeaderSize]byte // the slot holds the change until this is settled
	if err := w.sealRecord(header[:], next); err != nil {
		return err
	}
	if _, err := pwriteFull(w.node.vol.backing, w.desc.fd, header[crypto.RecordOffset:], crypto.RecordOffset); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	w.rec = next
	return w.syncLogged()
}

// putBack writes an old block again, unless it is still there.
func (w *writer) putBack(b keptBlock) error {
	k, at := w.node.vol.backing, crypto.BlockOffset(b.index)
	s := getScratch()
	defer s.put()
	now := s.cipher[:len(b.record)]
	n, err := preadFull(k, w.desc.fd, now, at)
	if err == nil && bytes.Equal(now[:n], b.record) {
		return nil
	}
	_, err = pwriteFull(k, w.desc.fd, b.record, at)
	return err
}

// cutBack gives the backing file the length that its record says.
func (w *writer) cutBack() error {
	cipherSize, err := crypto.CipherSize(int64(w.rec.Size))
	if err != nil {
		return err
	}
	var st unix.Statx_t
	if err := w.node.vol.backing.Statx(w.desc.fd, "", &st); err == nil && int64(st.Size) == cipherSize {
		return nil
	}
	return w.node.vol.backing.Ftruncate(w.desc.fd, cipherSize)
}

// isOnDisk tells whether the backing file has this record.
func (f *file) isOnDisk(r crypto.Record) bool {
	var header [crypto.HeaderSize]byte
	if n, err := preadFull(f.node.vol.backing, f.desc.fd, header[:], 0); err != nil || n < len(header) {
		return false
	}
	now, err := f.records.Open(header[:])
	return err == nil && now == r
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
