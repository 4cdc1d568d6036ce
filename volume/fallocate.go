package volume

import (
	"context"
	"math"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Modes of Allocate, those of fallocate(2).
const (
	KeepSize  = unix.FALLOC_FL_KEEP_SIZE
	PunchHole = unix.FALLOC_FL_PUNCH_HOLE
	ZeroRange = unix.FALLOC_FL_ZERO_RANGE

	punchHole = PunchHole | KeepSize
)

// Allocate does what fallocate(2) does with the bytes [plainOff, plainOff+n):
// reserves space for them, and extends the file over them unless KeepSize is
// set; makes a hole of them with PunchHole|KeepSize; zeroes them with ZeroRange.
// Other modes, which move what follows, are unix.EOPNOTSUPP.
func (n *Node) Allocate(ctx context.Context, plainOff, length int64, mode uint32) error {
	if err := n.vol.begin(ordinary); err != nil {
		return err
	}
	defer n.vol.end()
	switch mode {
	case 0, KeepSize, punchHole, ZeroRange, ZeroRange | KeepSize:
	default:
		return unix.EOPNOTSUPP
	}
	if plainOff < 0 || length <= 0 {
		return unix.EINVAL
	}
	if plainOff > math.MaxInt64-length || plainOff+length > crypto.MaxFileSize {
		return unix.EFBIG
	}
	f, err := n.openFile(true)
	if err != nil {
		return err
	}
	defer f.release()
	if err := f.refresh(); err != nil {
		return err
	}
	end := plainOff + length
	if mode&(PunchHole|ZeroRange) != 0 {
		if err := f.zero(ctx, plainOff, end); err != nil {
			return err
		}
	}
	if mode == punchHole {
		return nil
	}
	if err := f.reserve(plainOff, end); err != nil {
		return err
	}
	if mode&KeepSize == 0 && end > f.size() {
		return f.resize(ctx, end, true)
	}
	return nil
}

// size is the plaintext's size in bytes.
func (f *file) size() int64 {
	f.content.RLock()
	defer f.content.RUnlock()
	return int64(f.rec.Size)
}

// reserve has the backing store set space aside for the blocks that cover
// [plainOff, end). They stay holes until they are written.
func (f *file) reserve(plainOff, end int64) error {
	from := crypto.BlockOffset(crypto.BlockIndex(plainOff))
	to := crypto.BlockOffset(crypto.BlockIndex(end-1) + 1)
	return f.node.vol.backing.Fallocate(f.desc.fd, KeepSize, from, to-from)
}

// zero makes [plainOff, end) read as zeros, as far as it lies in the file: whole
// blocks become holes, blocks at the edges are written.
func (f *file) zero(ctx context.Context, plainOff, end int64) error {
	size := f.size()
	if plainOff >= size {
		return nil
	}
	end = min(end, size)
	first := (plainOff + crypto.BlockSize - 1) / crypto.BlockSize // first whole block
	last := end / crypto.BlockSize                                // after the last whole block
	if end == size {
		last = int64(crypto.BlockCount(size)) // a tail that is covered is whole
	}
	if first >= last {
		return f.zeroPart(ctx, plainOff, end)
	}
	if err := f.zeroPart(ctx, plainOff, first*crypto.BlockSize); err != nil {
		return err
	}
	if err := f.zeroPart(ctx, last*crypto.BlockSize, end); err != nil {
		return err
	}
	return f.punch(ctx, uint64(first), uint64(last))
}

// zeroPart writes zeros within a block or two, unless they are holes.
func (f *file) zeroPart(ctx context.Context, plainOff, end int64) error {
	for plainOff < end {
		part := min(end, (plainOff/crypto.BlockSize+1)*crypto.BlockSize) - plainOff
		hole, err := f.isHole(crypto.BlockIndex(plainOff))
		if err == nil && !hole {
			err = f.writeAt(ctx, make([]byte, part), plainOff, false)
		}
		if err != nil {
			return err
		}
		plainOff += part
	}
	return nil
}

// isHole tells whether nothing is stored of a block.
func (f *file) isHole(index uint64) (bool, error) {
	if err := f.beginRead(); err != nil {
		return false, err
	}
	defer f.endRead()
	f.content.RLock()
	defer f.content.RUnlock()
	return f.isHoleLocked(index)
}

// isHoleLocked is isHole for a caller that holds f.content.
func (f *file) isHoleLocked(index uint64) (bool, error) {
	n := crypto.BlockLen(int64(f.rec.Size), index)
	if n == 0 {
		return true, nil
	}
	s := getScratch()
	defer s.put()
	record := s.cipher[:crypto.CipherLen(n)]
	err := f.readSpan(record, index)
	return crypto.IsHole(record), err
}

// punch makes holes of the blocks [first, end).
func (f *file) punch(ctx context.Context, first, end uint64) error {
	keys, err := f.unlock(ctx)
	if err != nil {
		return err
	}
	defer keys.release()
	s, err := f.node.vol.redo.draw()
	if err != nil {
		return err
	}
	defer f.node.vol.redo.drop(s)

	if err := f.beginWrite(); err != nil {
		return err
	}
	defer f.endWrite()
	f.mtime = nil
	w := writer{file: f, keys: keys, slot: s}
	w.old = oldBlocks{file: f, count: crypto.BlockCount(int64(f.rec.Size))}
	end = min(end, w.old.count) // it may have been cut meanwhile
	if first >= end {
		return nil
	}
	f.tags.trim()
	next := w.nextRecord()
	if err := w.removeTerms(&next, first, end); err != nil {
		return err
	}
	w.change.flags = slotPunch
	w.change.punch.cipherOff = crypto.BlockOffset(first)
	tail := crypto.CipherLen(crypto.BlockLen(int64(f.rec.Size), end-1))
	w.change.punch.len = crypto.BlockOffset(end-1) + int64(tail) - crypto.BlockOffset(first)
	return w.finish(next)
}
