package volume

import (
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// SeekData returns the first offset from plainOff on at which something is
// stored; unix.ENXIO if there is nothing more. What the kernel has not written
// yet it does not know of.
func (n *Node) SeekData(plainOff int64) (int64, error) {
	at, end, err := n.seek(plainOff, func(f *file, index, count uint64) (uint64, error) {
		for index < count {
			var err error
			if index, err = f.nextData(index); err != nil || index >= count {
				return index, err
			}
			// The backing store's holes are of pages, ours of blocks.
			hole, err := f.isHoleLocked(index)
			if err != nil || !hole {
				return index, err
			}
			index++
		}
		return count, nil
	})
	if err == nil && end {
		err = unix.ENXIO
	}
	return at, err
}

// SeekHole returns the first offset from plainOff on that lies in a hole; the
// end of the file is one. Small holes may count as data, but not where plainOff
// lies in one.
func (n *Node) SeekHole(plainOff int64) (int64, error) {
	at, _, err := n.seek(plainOff, func(f *file, index, count uint64) (uint64, error) {
		if f.rec.Stored >= count {
			return count, nil
		}
		for index < count {
			hole, err := f.isHoleLocked(index)
			if err != nil || hole {
				return index, err
			}
			cipherOff, err := f.node.vol.backing.Seek(f.desc.fd, crypto.BlockOffset(index), unix.SEEK_HOLE)
			if err != nil {
				return index, err
			}
			next := min(count, max(index+1, crypto.BlockIndex(cipherOffToPlain(cipherOff))))
			// Our hole may have begun earlier than the backing store's pages.
			for next > index+1 {
				if hole, err = f.isHoleLocked(next - 1); err != nil {
					return index, err
				}
				if !hole {
					break
				}
				next--
			}
			index = next
		}
		return count, nil
	})
	return at, err
}

// seek finds a block from that of plainOff on, and answers with its offset; end
// says that it is the end of the file.
func (n *Node) seek(plainOff int64, find func(f *file, index, count uint64) (uint64, error)) (at int64, end bool, err error) {
	if err := n.vol.begin(ordinary); err != nil {
		return 0, false, err
	}
	defer n.vol.end()
	f, err := n.openFile(false)
	if err != nil {
		return 0, false, err
	}
	defer f.release()
	if err := f.beginRead(); err != nil {
		return 0, false, err
	}
	defer f.endRead()
	f.content.RLock()
	defer f.content.RUnlock()
	size := int64(f.rec.Size)
	if plainOff < 0 || plainOff >= size {
		return 0, false, unix.ENXIO
	}
	count := crypto.BlockCount(size)
	index, err := find(f, crypto.BlockIndex(plainOff), count)
	if err != nil {
		return 0, false, err
	}
	if index >= count {
		return size, true, nil
	}
	return max(plainOff, int64(index)*crypto.BlockSize), false, nil
}
