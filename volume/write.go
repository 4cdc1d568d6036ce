package volume

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// WriteAt encrypts data into the file at plainOff, extending it if need be; a
// gap before plainOff becomes a hole. It returns the bytes written, fewer than
// len(data) only with an error. When it returns, the data survives kill -9.
func (n *Node) WriteAt(ctx context.Context, data []byte, plainOff int64) (int, error) {
	return n.write(ctx, data, plainOff, false)
}

// WriteBack is WriteAt for what a program wrote earlier and the kernel kept:
// the modification time stays as it is, since the kernel knows it and sends it
// by itself.
func (n *Node) WriteBack(ctx context.Context, data []byte, plainOff int64) (int, error) {
	return n.write(ctx, data, plainOff, true)
}

func (n *Node) write(ctx context.Context, data []byte, plainOff int64, keepTime bool) (int, error) {
	if err := n.vol.begin(writingBack); err != nil {
		return 0, err
	}
	defer n.vol.end()
	if plainOff < 0 || plainOff > math.MaxInt64-int64(len(data)) || plainOff+int64(len(data)) > crypto.MaxFileSize {
		return 0, unix.EFBIG
	}
	f, err := n.openFile(true)
	if err != nil {
		return 0, err
	}
	defer f.release()
	done := 0
	for done < len(data) {
		part := data[done:min(len(data), done+maxWrite)]
		part = part[:f.untilAppend(plainOff+int64(done), len(part))]
		if err := f.writeAt(ctx, part, plainOff+int64(done), keepTime); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, nil
}

// writeAt is WriteAt for 1 to maxWrite bytes.
func (f *file) writeAt(ctx context.Context, data []byte, plainOff int64, keepTime bool) error {
	keys, err := f.unlock(ctx)
	if err != nil {
		return err
	}
	defer keys.release()
	sealer, err := f.blockSealer(keys)
	if err != nil {
		return err
	}
	v := f.node.vol
	s, err := v.redo.draw()
	if err != nil {
		return err
	}
	defer v.redo.drop(s)

	w := writer{file: f, keys: keys, sealer: sealer, slot: s, data: data, plainOff: plainOff}
	w.first = crypto.BlockIndex(plainOff)
	w.last = crypto.BlockIndex(plainOff + int64(len(data)) - 1)
	// Whole blocks need nothing of what is there: sealed outside the lock.
	if err := w.sealWhole(); err != nil {
		return err
	}
	if err := f.beginWrite(); err != nil {
		return err
	}
	defer f.endWrite()
	if !keepTime {
		f.mtime = nil
		return w.commit()
	}
	if err := f.knowTime(); err != nil {
		return err
	}
	w.change.flags = slotTimes
	w.change.mtime = unix.StatxTimestamp{Sec: f.mtime.Sec, Nsec: uint32(f.mtime.Nsec)}
	err = w.commit()
	if err != nil {
		f.mtime = nil
	}
	return err
}

// writer is one write of at most maxWrite bytes on its way to the disk. The
// slot's payload takes the record, then the blocks [first, last], then the
// padding of an old tail.
type writer struct {
	*file
	keys     *fileKeys
	sealer   *crypto.BlockSealer
	slot     *slot
	data     []byte
	plainOff int64

	first, last uint64 // blocks touched
	old         oldBlocks
	change      change
	next        crypto.Record // once it is made
}

// sealed is where block index goes in the payload, n bytes of plaintext.
func (w *writer) sealed(index uint64, n int) []byte {
	at := crypto.HeaderSize + int(index-w.first)*crypto.CipherBlockSize
	return w.slot.payload()[at : at+crypto.CipherLen(n)]
}

// sealWhole seals the blocks that data covers wholly.
func (w *writer) sealWhole() error {
	skip := int(-w.plainOff & (crypto.BlockSize - 1))
	if skip >= len(w.data) {
		return nil
	}
	whole := (len(w.data) - skip) &^ (crypto.BlockSize - 1)
	if whole == 0 {
		return nil
	}
	index := crypto.BlockIndex(w.plainOff + int64(skip))
	dst := w.slot.payload()[crypto.HeaderSize+int(index-w.first)*crypto.CipherBlockSize:]
	return w.sealer.Seal(dst[:crypto.CipherLen(whole)], w.data[skip:skip+whole], index)
}

// commit makes the change: it seals the blocks at the edges, computes the new
// record, arms the slot and writes. The caller holds file.write.
func (w *writer) commit() error {
	next := w.nextRecord()
	size := int64(w.rec.Size)
	end := w.plainOff + int64(len(w.data))
	next.Size = uint64(max(size, end))

	w.old = oldBlocks{file: w.file, first: w.first, count: crypto.BlockCount(size)}
	defer w.old.put()
	w.tags.trim()
	if err := w.old.loadTags(w.last); err != nil {
		return err
	}
	if err := w.keepTail(int64(next.Size)); err != nil {
		return err
	}
	if err := w.sealEdges(end, int64(next.Size)); err != nil {
		return err
	}
	padded, err := w.padTail(w.first, int64(next.Size))
	if err != nil {
		return err
	}
	w.updateRoot(&next, padded)

	pay := w.slot.payload()
	if err := w.sealRecord(pay[:crypto.HeaderSize], next); err != nil {
		return err
	}
	blocks := segment{
		crypto.BlockOffset(w.first), crypto.HeaderSize,
		int(w.last-w.first)*crypto.CipherBlockSize + crypto.CipherLen(crypto.BlockLen(int64(next.Size), w.last)),
	}
	record := segment{crypto.RecordOffset, crypto.RecordOffset, crypto.HeaderSize - crypto.RecordOffset}
	if padded {
		w.change.segments = append(w.change.segments, w.padSegment(size))
	}
	if w.first == 0 {
		record.len += blocks.len // they touch: one write
		w.change.segments = append(w.change.segments, record)
	} else {
		w.change.segments = append(w.change.segments, blocks, record)
	}
	if padded || w.first < w.old.count {
		w.logOverwrite()
	}
	return w.carryOut(next, func() { w.rememberTags(padded) })
}

// sealEdges seals the first and last block where data covers them in part: the
// rest comes from what the file holds there. end is where data ends.
func (w *writer) sealEdges(end, newSize int64) error {
	head := w.plainOff%crypto.BlockSize != 0
	if head {
		if err := w.sealMixed(w.first, newSize); err != nil {
			return err
		}
	}
	if end%crypto.BlockSize != 0 && (w.last != w.first || !head) {
		return w.sealMixed(w.last, newSize)
	}
	return nil
}

// sealMixed seals a block that is partly old and partly data.
func (w *writer) sealMixed(index uint64, newSize int64) error {
	s := getScratch()
	defer s.put()
	plain := s.plain[:crypto.BlockLen(newSize, index)]
	clear(plain)
	start := int64(index) * crypto.BlockSize
	from := max(0, w.plainOff-start)
	to := min(int64(len(plain)), w.plainOff+int64(len(w.data))-start)
	oldLen := crypto.BlockLen(int64(w.rec.Size), index)
	if index < w.old.count && (from > 0 || to < int64(oldLen)) {
		record, err := w.old.record(index, oldLen)
		if err != nil {
			return err
		}
		if err := w.openBlock(w.keys, plain[:oldLen], record, index); err != nil {
			return err
		}
	}
	copy(plain[from:to], w.data[start+from-w.plainOff:])
	return w.sealer.Seal(w.sealed(index, len(plain)), plain, index)
}

// keepTail keeps the record of an old short tail that the change makes longer,
// so that it can be put back if the store has no room for what follows it.
func (w *writer) keepTail(newSize int64) error {
	size := int64(w.rec.Size)
	if size%crypto.BlockSize == 0 || newSize <= size {
		return nil
	}
	tail := crypto.BlockIndex(size)
	_, err := w.old.record(tail, crypto.BlockLen(size, tail))
	return err
}

// padTail fills up the old last block with zeros when the file grows beyond it
// and the change, which begins at block before, does not touch it. It tells
// whether there was something to pad.
func (w *writer) padTail(before uint64, newSize int64) (bool, error) {
	size := int64(w.rec.Size)
	if size%crypto.BlockSize == 0 || newSize <= size {
		return false, nil
	}
	tail := crypto.BlockIndex(size)
	if tail >= before {
		return false, nil
	}
	oldLen := crypto.BlockLen(size, tail)
	record, err := w.old.record(tail, oldLen)
	if err != nil || crypto.IsHole(record) {
		return false, err // a hole grows by itself
	}
	s := getScratch()
	defer s.put()
	if err := w.openBlock(w.keys, s.plain[:oldLen], record, tail); err != nil {
		return false, err
	}
	clear(s.plain[oldLen:])
	return true, w.sealer.Seal(w.slot.payload()[slotPadAt:][:crypto.CipherBlockSize], s.plain[:], tail)
}

// padSegment is the padded tail of a file of that size, full by now.
func (w *writer) padSegment(size int64) segment {
	return segment{crypto.BlockOffset(crypto.BlockIndex(size)), slotPadAt, crypto.CipherBlockSize}
}

// updateRoot exchanges the terms of the old blocks for those of the new ones.
func (w *writer) updateRoot(next *crypto.Record, padded bool) {
	for i := w.first; i <= w.last; i++ {
		w.swapTerm(next, i, w.sealed(i, crypto.BlockLen(int64(next.Size), i)))
	}
	if padded {
		w.swapTerm(next, w.old.count-1, w.slot.payload()[slotPadAt:][:crypto.CipherBlockSize])
	}
}

// swapTerm puts the term of a newly sealed block in the place of the old one's;
// a file without a root only counts.
func (w *writer) swapTerm(next *crypto.Record, index uint64, sealed []byte) {
	tag := w.old.tag(index)
	hole := tag == [16]byte{}
	if hole {
		next.Stored++
	}
	if !next.HasRoot() {
		return
	}
	if !hole {
		crypto.XORRoot(&next.Root, w.keys.rooter.Term(index, tag))
	}
	crypto.XORRoot(&next.Root, w.keys.rooter.Term(index, crypto.RecordTag(sealed)))
}

// rememberTags keeps the tags of the blocks now on disk.
func (w *writer) rememberTags(padded bool) {
	size := int64(w.rec.Size)
	for i := w.first; i <= w.last; i++ {
		w.tags.set(i, crypto.RecordTag(w.sealed(i, crypto.BlockLen(size, i))))
	}
	if padded {
		w.tags.set(w.old.count-1, crypto.RecordTag(w.slot.payload()[slotPadAt:][:crypto.CipherBlockSize]))
	}
}
