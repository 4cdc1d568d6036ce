package volume

import (
	"context"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// truncateReads is how many blocks a truncate reads at most to keep the root
// exact; where it would be more, the record says that there is no root.
const truncateReads = 256

// Truncate sets the file's size in bytes. Growth is a hole.
func (n *Node) Truncate(ctx context.Context, size int64) error {
	if err := n.vol.begin(ordinary); err != nil {
		return err
	}
	defer n.vol.end()
	return n.truncate(ctx, size)
}

func (n *Node) truncate(ctx context.Context, size int64) error {
	if size < 0 {
		return unix.EINVAL
	}
	if size > crypto.MaxFileSize {
		return unix.EFBIG
	}
	f, err := n.openFile(true)
	if err != nil {
		return err
	}
	defer f.release()
	return f.truncate(ctx, size)
}

func (f *file) truncate(ctx context.Context, size int64) error { return f.resize(ctx, size, false) }

// resize is truncate; with onlyGrow it leaves a file that is larger.
func (f *file) resize(ctx context.Context, size int64, onlyGrow bool) error {
	v := f.node.vol
	t := writer{file: f}
	// Emptying needs no key, so that it works without the KMS.
	if size > 0 {
		var err error
		if t.keys, err = f.unlock(ctx); err != nil {
			return err
		}
		defer t.keys.release()
		if t.sealer, err = f.blockSealer(t.keys); err != nil {
			return err
		}
	}
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)
	t.slot = s

	if err := f.beginWrite(); err != nil {
		return err
	}
	defer f.endWrite()
	f.mtime = nil
	old := int64(f.rec.Size)
	if size == old || onlyGrow && size < old {
		return f.touch()
	}
	next := t.nextRecord()
	next.Size = uint64(size)
	f.tags.trim()
	t.old = oldBlocks{file: f, count: crypto.BlockCount(old)}
	defer t.old.put()
	if size > old {
		err = t.grow(&next)
	} else {
		err = t.shrink(&next)
	}
	if err != nil {
		return err
	}
	return t.cut(next)
}

// touch moves mtime and ctime, as a truncate to the same size does.
func (f *file) touch() error {
	return f.node.vol.backing.Utimensat(f.desc.fd, "", &[2]unix.Timespec{
		{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW},
	})
}

// grow pads the old tail; everything after it is a hole.
func (w *writer) grow(next *crypto.Record) error {
	// The change touches no block, so it begins after all of them; a tail that
	// stays the last block is padded to its new length only.
	size := int64(w.rec.Size)
	tail := crypto.BlockIndex(size)
	if size%crypto.BlockSize != 0 && crypto.BlockCount(int64(next.Size)) == w.old.count {
		return w.resealTail(next, tail)
	}
	padded, err := w.padTail(w.old.count, int64(next.Size))
	if err != nil || !padded {
		return err
	}
	w.swapTerm(next, tail, w.slot.payload()[slotPadAt:][:crypto.CipherBlockSize])
	w.change.segments = append(w.change.segments, w.padSegment(size))
	return nil
}

// shrink cuts the new last block and takes the removed ones out of the root.
func (w *writer) shrink(next *crypto.Record) error {
	size := int64(next.Size)
	if size == 0 {
		next.Stored, next.Root = 0, [16]byte{}
		next.Flags &^= crypto.FlagRootAbsent // the root of nothing is known
		return nil
	}
	if size%crypto.BlockSize != 0 {
		if err := w.resealTail(next, crypto.BlockIndex(size)); err != nil {
			return err
		}
	}
	return w.removeTerms(next, crypto.BlockCount(size), w.old.count)
}

// resealTail seals the block that becomes, or stays, the last one with its new
// length; a hole stays one.
func (w *writer) resealTail(next *crypto.Record, tail uint64) error {
	oldLen := crypto.BlockLen(int64(w.rec.Size), tail)
	newLen := crypto.BlockLen(int64(next.Size), tail)
	record, err := w.old.record(tail, oldLen)
	if err != nil || crypto.IsHole(record) {
		return err
	}
	s := getScratch()
	defer s.put()
	if err := w.openBlock(w.keys, s.plain[:oldLen], record, tail); err != nil {
		return err
	}
	clear(s.plain[min(oldLen, newLen):])
	sealed := w.slot.payload()[slotPadAt:][:crypto.CipherLen(newLen)]
	if err := w.sealer.Seal(sealed, s.plain[:newLen], tail); err != nil {
		return err
	}
	w.swapTerm(next, tail, sealed)
	w.change.segments = append(w.change.segments, segment{crypto.BlockOffset(tail), slotPadAt, len(sealed)})
	return nil
}

// removeTerms takes the blocks [first, end) out of count and root.
func (w *writer) removeTerms(next *crypto.Record, first, end uint64) error {
	dense := w.rec.Stored == w.old.count
	if removed := end - first; dense && (removed > truncateReads || !next.HasRoot()) {
		next.Stored -= removed
		next.Flags |= crypto.FlagRootAbsent
		next.Root = [16]byte{}
		return nil
	}
	size := int64(w.rec.Size)
	s := getScratch()
	defer s.put()
	for i := first; i < end; i++ {
		if !dense {
			// Skip what is a hole in the backing file too.
			var err error
			if i, err = w.nextData(i); err != nil || i >= end {
				return err
			}
		}
		tag, known := w.tags.get(i)
		if !known {
			record := s.cipher[:crypto.CipherLen(crypto.BlockLen(size, i))]
			if err := w.readSpan(record, i); err != nil {
				return err
			}
			tag = tagOf(record)
		}
		if tag == ([16]byte{}) {
			continue
		}
		next.Stored -= min(1, next.Stored)
		if next.HasRoot() {
			crypto.XORRoot(&next.Root, w.keys.rooter.Term(i, tag))
		}
	}
	return nil
}

// nextData is the first block from index on of which the backing file holds
// anything; one past the last block if there is none. Nothing uses the
// descriptor's position, which this moves.
func (f *file) nextData(index uint64) (uint64, error) {
	if f.late != nil {
		return index, nil // any may be in its slot
	}
	cipherOff, err := f.node.vol.backing.Seek(f.desc.fd, crypto.BlockOffset(index), unix.SEEK_DATA)
	if err == unix.ENXIO {
		return crypto.BlockCount(int64(f.rec.Size)), nil
	}
	if err != nil {
		return index, err
	}
	return max(index, crypto.BlockIndex(cipherOffToPlain(cipherOff))), nil
}

// cut writes a truncation: the resealed tail, the new size, the record.
func (w *writer) cut(next crypto.Record) error {
	cipherSize, err := crypto.CipherSize(int64(next.Size))
	if err != nil {
		return unix.EFBIG
	}
	w.change.flags |= slotTruncate
	w.change.size = cipherSize
	return w.finish(next)
}

// finish makes a change that writes no blocks but those at the payload's end, and
// the record. The caller holds file.write.
func (w *writer) finish(next crypto.Record) error {
	// What comes in the place of blocks that were cut off overwrites them, should
	// the power be lost: so cutting is durable before.
	if len(w.change.segments) > 0 || w.change.flags&slotPunch != 0 || next.Size < w.rec.Size {
		w.logOverwrite()
	}
	pay := w.slot.payload()
	if err := w.sealRecord(pay[:crypto.HeaderSize], next); err != nil {
		return err
	}
	w.change.segments = append(w.change.segments,
		segment{crypto.RecordOffset, crypto.RecordOffset, crypto.HeaderSize - crypto.RecordOffset})
	w.first, w.last = 1, 0 // no blocks but those kept
	return w.carryOut(next, w.tags.clear)
}

// cipherOffToPlain is where in the plaintext the block begins that covers
// cipherOff.
func cipherOffToPlain(cipherOff int64) int64 {
	return max(0, cipherOff-crypto.HeaderSize) / crypto.CipherBlockSize * crypto.BlockSize
}
