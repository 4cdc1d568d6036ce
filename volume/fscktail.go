package volume

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// padOldTail brings back a last block that an append was about to pad when the
// power went: the file is longer already, and the block is still the short one of
// before.
func (j *judgement) padOldTail(ctx context.Context) (padded bool, err error) {
	s, f := j.state, j.file
	tail := crypto.BlockIndex(int64(s.disk.Size))
	old := int(s.disk.Size % crypto.BlockSize)
	if j.slot != nil || j.file.lost || old == 0 || uint64(s.size) <= s.disk.Size || len(s.bad) == 0 {
		return false, nil
	}
	var at *Finding
	for i, b := range s.bad {
		if b.index == tail {
			at = j.blocks[i]
		}
	}
	if at == nil {
		return false, nil
	}
	scratch := getScratch()
	defer scratch.put()
	record := scratch.cipher[:crypto.CipherLen(old)]
	if err := f.readSpan(record, tail); err != nil {
		return false, err
	}
	if j.keys.blocks.Open(scratch.plain[:old], record, tail) != nil {
		return false, nil
	}
	n := crypto.BlockLen(s.size, tail)
	clear(scratch.plain[old:n])
	if _, err := f.node.WriteBack(ctx, scratch.plain[:n], int64(tail)*crypto.BlockSize); err != nil {
		return false, err
	}
	at.repaired("it was about to be padded: its %d bytes are brought back, and zeros behind them", old)
	j.add(at)
	for _, f := range j.seals {
		f.repaired("its record says what is there from now on")
		j.add(f)
	}
	j.padded = true
	return true, nil
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
	if s.bad[0].tag != ([crypto.TagSize]byte{}) {
		crypto.XORRoot(&s.root, j.keys.rooter.Term(s.bad[0].index, s.bad[0].tag))
		s.stored--
	}
	s.size = int64(s.bad[0].index) * crypto.BlockSize
	return where, nil
}

// cut is reseal with another end of the backing file. The caller holds f.write.
func (j *judgement) cut(slot *slot) error {
	f := j.file
	var st unix.Statx_t
	if err := j.vol.backing.Statx(f.desc.fd, "", &st); err != nil {
		return err
	}
	next := f.nextRecord()
	j.describe(&next)
	w := writer{file: f, slot: slot, keys: j.keys}
	if err := w.cut(next); err != nil {
		return err
	}
	f.mtime = nil
	return f.putTimeBack(unix.Timespec{Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)})
}

func mustCipherSize(size int64) int64 {
	n, _ := crypto.CipherSize(size) // it was the size of a backing file
	return n
}
