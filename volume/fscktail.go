package volume

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// oldTail is a block that an append was about to pad when the power went: the file
// is longer already, and the block is still the short one of before.
type oldTail struct {
	index   uint64
	was     int    // bytes of plaintext
	sealed  []byte // the block as it is to be
	finding *Finding
}

// padOldTail looks for an old tail among the damaged blocks, and takes it for one
// that is whole from now on.
func (j *judgement) padOldTail() error {
	s, f := j.state, j.file
	index, was := crypto.BlockIndex(int64(s.disk.Size)), int(s.disk.Size%crypto.BlockSize)
	at := slices.IndexFunc(s.bad, func(b badBlock) bool { return b.index == index })
	if was == 0 || uint64(s.size) <= s.disk.Size || at < 0 {
		return nil
	}
	scratch := getScratch()
	defer scratch.put()
	record := scratch.cipher[:crypto.CipherLen(was)]
	if err := f.readSpan(record, index); err != nil {
		return err
	}
	if j.keys.blocks.Open(scratch.plain[:was], record, index) != nil {
		return nil
	}
	plain := scratch.plain[:crypto.BlockLen(s.size, index)]
	clear(plain[was:])
	sealer, err := f.blockSealer(j.keys)
	if err != nil {
		return err
	}
	t := &oldTail{index: index, was: was, sealed: make([]byte, crypto.CipherLen(len(plain))), finding: j.blocks[at]}
	if err := sealer.Seal(t.sealed, plain, index); err != nil {
		return err
	}
	for _, tag := range [][crypto.TagSize]byte{s.bad[at].tag, crypto.RecordTag(t.sealed)} {
		crypto.XORRoot(&s.root, j.keys.rooter.Term(index, tag))
	}
	s.damaged--
	s.bad, j.blocks = slices.Delete(s.bad, at, at+1), slices.Delete(j.blocks, at, at+1)
	j.tail = t
	return nil
}

// setTailAside copies a torn last block to lost+found.
func (j *judgement) setTailAside() (where string, err error) {
	v, s := j.vol, j.state
	b := make([]byte, crypto.CipherBlockSize)
	n, err := preadFull(v.backing, j.file.desc.fd, b, crypto.BlockOffset(s.bad[0].index))
	if err != nil {
		return "", err
	}
	fd, where, err := v.newLostPlace(j.entry.backingPath())
	if err != nil {
		return "", err
	}
	defer v.backing.Close(fd)
	name := fmt.Sprintf("%s%d", tailPrefix, s.bad[0].index)
	if err := writeNew(v.backing, fd, name, 0o600, b[:n]); err != nil {
		return "", err
	}
	crypto.XORRoot(&s.root, j.keys.rooter.Term(s.bad[0].index, s.bad[0].tag))
	s.stored--
	s.size = int64(s.bad[0].index) * crypto.BlockSize
	return where, nil
}

// rewrite is reseal where more than the record changes: the old tail, and with cut
// the end of the backing file. The caller holds f.write.
func (j *judgement) rewrite(slot *slot, cut bool) error {
	f := j.file
	if err := f.knowTime(); err != nil {
		return err
	}
	w := writer{file: f, slot: slot, keys: j.keys, old: oldBlocks{file: f, count: crypto.BlockCount(j.state.size)}}
	defer w.old.put()
	w.change.flags = slotTimes
	w.change.mtime = unix.StatxTimestamp{Sec: f.mtime.Sec, Nsec: uint32(f.mtime.Nsec)}
	if t := j.tail; t != nil {
		if _, err := w.old.record(t.index, len(t.sealed)-crypto.BlockOverhead); err != nil {
			return err
		}
		copy(slot.payload()[slotPadAt:], t.sealed)
		w.change.segments = append(w.change.segments, segment{crypto.BlockOffset(t.index), slotPadAt, len(t.sealed)})
	}
	next := f.nextRecord()
	j.describe(&next)
	if cut {
		return w.cut(next)
	}
	return w.finish(next)
}

func mustCipherSize(size int64) int64 {
	n, _ := crypto.CipherSize(size) // it was the size of a backing file
	return n
}
