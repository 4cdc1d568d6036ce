package volume

import (
	"context"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// contentState is what a file's blocks say.
type contentState struct {
	disk       crypto.Record // as it is on disk
	generation uint64        // of the state in memory
	cipherSize int64
	size       int64
	stored     uint64
	root       [16]byte
	damaged    uint64     // blocks
	bad        []badBlock // the first of them
	holes      uint64     // where none can be
	erased     []uint64   // the first of them
}

type badBlock struct {
	index uint64
	tag   [crypto.TagSize]byte
	err   error
}

// namedBlocks is how many blocks of a file are named one by one.
const namedBlocks = 100

func (s *contentState) spoil(b badBlock) {
	if s.damaged++; s.damaged <= namedBlocks {
		s.bad = append(s.bad, b)
	}
}

func (s *contentState) erase(index uint64) {
	if s.holes++; s.holes <= namedBlocks {
		s.erased = append(s.erased, index)
	}
}

// read goes over the blocks; nil if the file was changed meanwhile.
func (c *fsck) read(ctx context.Context, f *file, keys *fileKeys) (*contentState, error) {
	s := new(contentState)
	f.content.RLock()
	cipherSize, err := f.cipherSize()
	if err == nil && !f.lost {
		s.disk, err = f.diskRecord()
	}
	s.generation, s.size, s.cipherSize = f.rec.Generation, int64(f.rec.Size), cipherSize
	f.content.RUnlock()
	if err != nil {
		return nil, err
	}
	dense := !f.lost && s.disk.Stored >= crypto.BlockCount(s.size)
	for index := uint64(0); index < crypto.BlockCount(s.size); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, err := c.readBlocks(f, keys, s, index, dense)
		if err != nil || next == 0 {
			return nil, err
		}
		index = next
	}
	f.content.RLock()
	defer f.content.RUnlock()
	if f.rec.Generation != s.generation {
		return nil, nil
	}
	return s, nil
}

// cipherSize is how long the backing file is, or will be once its late change is
// made. The caller holds f.content or f.write.
func (f *file) cipherSize() (int64, error) {
	if f.whole() != nil {
		return mustCipherSize(int64(f.rec.Size)), nil
	}
	var st unix.Statx_t
	err := f.node.vol.backing.Statx(f.desc.fd, "", &st)
	return int64(st.Size), err
}

// diskRecord reads the record anew, as it will be once the file's late change is
// made. The caller holds f.content or f.write.
func (f *file) diskRecord() (crypto.Record, error) {
	var header [crypto.HeaderSize]byte
	if _, err := f.node.vol.preadLate(f.late, f.desc.fd, header[:], 0); err != nil {
		return crypto.Record{}, err
	}
	r, err := f.records.Open(header[:])
	if err != nil {
		return r, f.node.integrity(-1, err)
	}
	return r, nil
}

// readBlocks decrypts some blocks from index on, passing over what the backing
// file does not hold, and returns the next one; 0 if the file was changed.
func (c *fsck) readBlocks(f *file, keys *fileKeys, s *contentState, index uint64, dense bool) (uint64, error) {
	f.content.RLock()
	defer f.content.RUnlock()
	if f.rec.Generation != s.generation {
		return 0, nil
	}
	count := crypto.BlockCount(s.size)
	from, err := f.nextData(index)
	if err != nil {
		return 0, err
	}
	for ; index < min(from, count); index++ {
		if !dense {
			index = min(from, count)
			break
		}
		s.erase(index)
	}
	if index >= count {
		return count, nil
	}
	end := min(index+maxWrite/crypto.BlockSize, count)
	buf := spans.Get().(*[spanSize]byte)
	defer spans.Put(buf)
	span := buf[:crypto.BlockOffset(end-1)-crypto.BlockOffset(index)+int64(crypto.CipherLen(crypto.BlockLen(s.size, end-1)))]
	if err := f.readSpan(span, index); err != nil {
		return 0, err
	}
	s.stored += keys.rooter.XORRecords(&s.root, span, index)
	plain := getScratch()
	defer plain.put()
	c.mu.Lock()
	c.report.Blocks += int64(end - index)
	c.mu.Unlock()
	for rest := span; index < end; index++ {
		n := crypto.BlockLen(s.size, index)
		record := rest[:crypto.CipherLen(n)]
		rest = rest[len(record):]
		if crypto.IsHole(record) {
			if dense {
				s.erase(index)
			}
			continue
		}
		if err := keys.blocks.Open(plain.plain[:n], record, index); err != nil {
			s.spoil(badBlock{index, crypto.RecordTag(record), err})
		}
	}
	return end, nil
}
