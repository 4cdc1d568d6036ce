package volume

// tagCache remembers the tags of a file's blocks that this mount has read for
// a change or written, so that overwriting them needs no read for the root.
// A zero tag stands for a hole. It is guarded by file.write.
type tagCache struct {
	first  [firstTags][16]byte // most files have no more blocks
	known  uint8               // bit i: first[i] is valid
	chunks map[uint64]*tagChunk
}

type tagChunk struct {
	known uint64 // bit i: tags[i] is valid
	tags  [tagsPerChunk][16]byte
}

const (
	firstTags    = 4
	tagsPerChunk = 64
	// 1,024 chunks cover 256 MiB of a file in 1 MiB of memory.
	maxTagChunks = 1024
)

func (c *tagCache) get(index uint64) (tag [16]byte, ok bool) {
	if index < firstTags {
		return c.first[index], c.known&(1<<index) != 0
	}
	ch := c.chunks[index/tagsPerChunk]
	if ch == nil || ch.known&(1<<(index%tagsPerChunk)) == 0 {
		return tag, false
	}
	return ch.tags[index%tagsPerChunk], true
}

func (c *tagCache) set(index uint64, tag [16]byte) {
	if index < firstTags {
		c.first[index] = tag
		c.known |= 1 << index
		return
	}
	ch := c.chunks[index/tagsPerChunk]
	if ch == nil {
		if c.chunks == nil {
			c.chunks = make(map[uint64]*tagChunk)
		}
		ch = new(tagChunk)
		c.chunks[index/tagsPerChunk] = ch
	}
	ch.known |= 1 << (index % tagsPerChunk)
	ch.tags[index%tagsPerChunk] = tag
}

// trim bounds the memory; it is called between changes, since a change relies on
// the tags that it has set.
func (c *tagCache) trim() {
	if len(c.chunks) > maxTagChunks {
		c.chunks = nil
	}
}

// clear forgets everything.
func (c *tagCache) clear() { *c = tagCache{} }
