package volume

import (
	"context"
	"errors"
	"fmt"

	"kmsfs/crypto"
)

// wholeFileBlocks is the size up to which reading a whole file also checks its
// root, in blocks.
const wholeFileBlocks = 32

var (
	errHole = errors.New("a hole where none can be: the block was erased")
	errRoot = errors.New("the blocks do not belong together: some are older than others")
)

// ReadAt decrypts into dest what the file holds from plainOff on. It returns
// the bytes read, fewer than len(dest) only at the end of the file. A damaged
// block makes the whole read fail with an IntegrityError that names it.
func (n *Node) ReadAt(ctx context.Context, dest []byte, plainOff int64) (int, error) {
	if err := n.vol.begin(ordinary); err != nil {
		return 0, err
	}
	defer n.vol.end()
	f, err := n.openFile(false)
	if err != nil {
		return 0, err
	}
	defer f.release()
	done := 0
	for done < len(dest) {
		part := dest[done:min(len(dest), done+maxWrite)]
		m, err := f.read(ctx, part, plainOff+int64(done))
		if err != nil {
			return done, err
		}
		done += m
		if m < len(part) {
			break
		}
	}
	return done, nil
}

// read is ReadAt for at most maxWrite bytes.
func (f *file) read(ctx context.Context, dest []byte, plainOff int64) (int, error) {
	if plainOff < 0 {
		return 0, errors.New("read file: negative offset")
	}
	if f.shared == nil || f.keys.Load() == nil {
		// For nothing no key is needed.
		if err := f.refresh(); err != nil {
			return 0, err
		}
		f.content.RLock()
		if plainOff >= int64(f.rec.Size) || len(dest) == 0 {
			f.content.RUnlock()
			return 0, nil
		}
		f.content.RUnlock()
	}
	// The KMS may have to be asked: no lock is held meanwhile.
	keys, err := f.unlock(ctx)
	if err != nil {
		return 0, err
	}
	defer keys.release()

	if err := f.beginRead(); err != nil {
		return 0, err
	}
	defer f.endRead()
	f.content.RLock()
	defer f.content.RUnlock()
	size := int64(f.rec.Size)
	if plainOff >= size {
		return 0, nil
	}
	dest = dest[:min(int64(len(dest)), size-plainOff)]
	end := plainOff + int64(len(dest))
	first, last := crypto.BlockIndex(plainOff), crypto.BlockIndex(end-1)

	buf := spans.Get().(*[spanSize]byte)
	defer spans.Put(buf)
	span := buf[:crypto.BlockOffset(last)-crypto.BlockOffset(first)+int64(crypto.CipherLen(crypto.BlockLen(size, last)))]
	if err := f.readSpan(span, first); err != nil {
		return 0, err
	}
	if err := f.openSpan(keys, dest, plainOff, span, size); err != nil {
		return 0, err
	}
	if plainOff == 0 && end == size && last < wholeFileBlocks {
		if err := f.checkRoot(keys, span); err != nil {
			return 0, err
		}
	}
	return len(dest), nil
}

// readSpan fills span with ciphertext from block first on. A backing file that
// has become shorter is damage.
func (f *file) readSpan(span []byte, first uint64) error {
	got, err := f.node.vol.preadLate(f.late, f.desc.fd, span, crypto.BlockOffset(first))
	if err != nil {
		return err
	}
	if got < len(span) {
		block := first + uint64(got/crypto.CipherBlockSize)
		return f.node.integrity(int64(block), errors.New("the backing file ends inside it"))
	}
	return nil
}

// openSpan decrypts the blocks of span into dest, which begins at plainOff and
// lies within the blocks. The caller holds f.content or f.write.
func (f *file) openSpan(keys *fileKeys, dest []byte, plainOff int64, span []byte, size int64) error {
	index := crypto.BlockIndex(plainOff)
	skip := int(plainOff % crypto.BlockSize)
	for len(dest) > 0 {
		n := crypto.BlockLen(size, index)
		record := span[:crypto.CipherLen(n)]
		span = span[len(record):]
		m := min(n-skip, len(dest))
		if m == n {
			if err := f.openBlock(keys, dest[:n], record, index); err != nil {
				return err
			}
		} else {
			s := getScratch()
			err := f.openBlock(keys, s.plain[:n], record, index)
			copy(dest[:m], s.plain[skip:])
			s.put()
			if err != nil {
				return err
			}
		}
		dest = dest[m:]
		skip = 0
		index++
	}
	return nil
}

// openBlock decrypts one block; holes read as zeros where there may be any.
func (f *file) openBlock(keys *fileKeys, dest, record []byte, index uint64) error {
	if crypto.IsHole(record) {
		if f.rec.Stored >= crypto.BlockCount(int64(f.rec.Size)) && !f.accepted.Load() {
			if err := f.mismatch(f.node.integrity(int64(index), errHole)); err != nil {
				return err
			}
		}
		clear(dest)
		return nil
	}
	if err := keys.blocks.Open(dest, record, index); err != nil {
		return f.node.integrity(int64(index), err)
	}
	return nil
}

// checkRoot compares the root of a whole file's blocks with its record.
func (f *file) checkRoot(keys *fileKeys, span []byte) error {
	if !f.rec.HasRoot() || f.accepted.Load() {
		return nil
	}
	var root [16]byte
	stored := keys.rooter.XORRecords(&root, span, 0)
	if stored != f.rec.Stored {
		return f.mismatch(f.node.integrity(-1, fmt.Errorf("%d blocks are stored, its record says %d", stored, f.rec.Stored)))
	}
	if root != f.rec.Root {
		return f.mismatch(f.node.integrity(-1, errRoot))
	}
	return nil
}

// Foresee does what the first read of a file begins with, as far as no KMS is asked
// for it: the backing file is opened, the record authenticated, and where the
// volume key wraps the data keys, this file's is unwrapped. What fails is for
// the reader to find.
func (n *Node) Foresee() {
	v := n.vol
	if v.custody.gate.enter(ordinary) != nil {
		return
	}
	defer v.custody.gate.leave()
	f, err := n.openFile(false)
	if err != nil {
		return
	}
	defer f.release()
	if v.mode != ModeVolume {
		return
	}
	if k, err := f.unlock(v.ctx); err == nil {
		k.release()
	}
}
