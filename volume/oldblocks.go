package volume

import (
	"kmsfs/crypto"
)

// oldBlocks is what a file holds, before a change, in the blocks that the change
// touches: their tags for the root, their records where a part of them stays.
// Every block that must be read is read once. The caller holds file.write.
type oldBlocks struct {
	file  *file
	first uint64 // first block of the change
	count uint64 // blocks that the file has

	buf  *[spanSize]byte // ciphertext from block first on, if it was read
	span []byte
	kept []keptBlock // records read one by one; at most head, tail and padding
}

// keptBlock is an old block's record, kept to put it back if the change fails.
type keptBlock struct {
	index  uint64
	record []byte
	buf    *scratch
}

// loadTags makes the tags of the blocks [first, last] known, by one read of the
// old span if one of them is not.
func (o *oldBlocks) loadTags(last uint64) error {
	if o.first >= o.count {
		return nil
	}
	last = min(last, o.count-1)
	known := true
	for i := o.first; i <= last && known; i++ {
		_, known = o.file.tags.get(i)
	}
	if known {
		return nil
	}
	size := int64(o.file.rec.Size)
	o.buf = spans.Get().(*[spanSize]byte)
	o.span = o.buf[:int(last-o.first)*crypto.CipherBlockSize+crypto.CipherLen(crypto.BlockLen(size, last))]
	if err := o.file.readSpan(o.span, o.first); err != nil {
		return err
	}
	for i := o.first; i <= last; i++ {
		record := o.inSpan(i, crypto.BlockLen(size, i))
		o.file.tags.set(i, tagOf(record))
	}
	return nil
}

func (o *oldBlocks) inSpan(index uint64, n int) []byte {
	at := int(index-o.first) * crypto.CipherBlockSize
	return o.span[at : at+crypto.CipherLen(n)]
}

// record returns the old record of a block of n bytes of plaintext, and keeps
// it until put.
func (o *oldBlocks) record(index uint64, n int) ([]byte, error) {
	for _, k := range o.kept {
		if k.index == index {
			return k.record, nil
		}
	}
	if o.span != nil && index >= o.first && int(index-o.first)*crypto.CipherBlockSize < len(o.span) {
		r := o.inSpan(index, n)
		o.kept = append(o.kept, keptBlock{index: index, record: r})
		return r, nil
	}
	s := getScratch()
	r := s.cipher[:crypto.CipherLen(n)]
	if err := o.file.readSpan(r, index); err != nil {
		s.put()
		return nil, err
	}
	o.kept = append(o.kept, keptBlock{index: index, record: r, buf: s})
	if _, known := o.file.tags.get(index); !known {
		o.file.tags.set(index, tagOf(r))
	}
	return r, nil
}

// tag is the old tag of a block, zero for a hole and beyond the end.
func (o *oldBlocks) tag(index uint64) [16]byte {
	if index >= o.count {
		return [16]byte{}
	}
	tag, _ := o.file.tags.get(index)
	return tag
}

// put gives the buffers back.
func (o *oldBlocks) put() {
	for _, k := range o.kept {
		if k.buf != nil {
			k.buf.put()
		}
	}
	if o.buf != nil {
		spans.Put(o.buf)
	}
	*o = oldBlocks{}
}

// tagOf is the tag of a block record, zero for a hole.
func tagOf(record []byte) [16]byte {
	if crypto.IsHole(record) {
		return [16]byte{}
	}
	return crypto.RecordTag(record)
}
