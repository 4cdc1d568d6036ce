package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// readSeal reads and checks header, record, size and binding of the backing
// file that is open as fd. The caller holds n.mu.
func (n *Node) readSeal(fd int) (*file, error) {
	v := n.vol
	unlock, err := v.lockToLoad(fd)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var header [crypto.HeaderSize]byte
	got, err := preadFull(v.backing, fd, header[:], 0)
	if err != nil {
		return nil, err
	}
	if got < len(header) {
		return nil, n.integrity(-1, fmt.Errorf("its header is cut short at %d of %d bytes "+
			"(an interrupted create, or damage)", got, len(header)))
	}
	id, err := crypto.HeaderFileID(header[:])
	if err != nil {
		return nil, n.integrity(-1, err)
	}
	f := &file{node: n, id: id, records: crypto.NewRecordCipher(v.vk, v.id, id), shared: v.newSharedFile()}
	if late := v.late.of(n.key.ino); late != nil && late.change.file == id {
		f.late = late
		if _, err := v.preadLate(late, fd, header[:], 0); err != nil {
			return nil, err
		}
	}
	if f.rec, err = f.records.Open(header[:]); err != nil {
		return nil, n.integrity(-1, fmt.Errorf("record: %w", err))
	}
	if f.late == nil && f.shared == nil { // else whoever uses it looks
		var st unix.Statx_t
		if err := v.backing.Statx(fd, "", &st); err != nil {
			return nil, err
		}
		if isStrange(int64(st.Size)) {
			if err := f.finishShared(fd, header[:], &st); err != nil {
				return nil, err
			}
		}
		if err := f.checkSize(int64(st.Size)); err != nil {
			return nil, err
		}
	}
	if err := f.checkBinding(); err != nil {
		return nil, err
	}
	return f, nil
}

// checkSize compares the record's size with the backing file's, in bytes.
func (f *file) checkSize(cipherSize int64) error {
	size, err := crypto.PlainSize(cipherSize)
	if err == nil && uint64(size) == f.rec.Size {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("the backing file holds %d bytes of content, its record says %d", size, f.rec.Size)
	}
	if err := f.mismatch(f.node.integrity(-1, err)); err != nil {
		return err
	}
	f.rec.Size = uint64(crypto.PlainSizeFloor(cipherSize))
	f.rec.Stored = min(f.rec.Stored, crypto.BlockCount(int64(f.rec.Size)))
	f.rec.Flags |= crypto.FlagRootAbsent
	f.rec.Root = [16]byte{}
	return nil
}

// mismatch deals with something that does not match the seal: it is an error,
// but after a power cut, which may have reordered writes, it is only reported.
func (f *file) mismatch(err error) error {
	if !f.node.vol.accepts(err) {
		return err
	}
	f.accepted.Store(true)
	return nil
}

// accepts tells whether a mismatch is accepted, and reports it then: after a power
// cut, until a check has settled everything, and by such a check.
func (v *Volume) accepts(mismatch error) bool {
	if v.checking {
		return true
	}
	if !v.accepting() {
		return false
	}
	v.log.Warn("accepted after a power cut", "error", mismatch)
	return true
}

// accepting tells whether mismatches are accepted while the volume is in use.
func (v *Volume) accepting() bool { return v.relaxed && !v.settled.Load() }

// checkBinding makes sure that the file is where its record says, by each name
// that it is known by. A file that was ever linked more than once is not bound.
func (f *file) checkBinding() error {
	if f.rec.Flags&crypto.FlagLinked != 0 {
		return nil
	}
	if d := f.node.desc; d != nil && d.pinned {
		return nil // without a name, and open since it had one, or was made so
	}
	places := f.node.known()
	bound := len(places) > 0
	for _, p := range places {
		fits, err := f.node.vol.isBound(&f.rec, p)
		if err != nil {
			return err
		}
		bound = bound && fits
	}
	if bound {
		return nil
	}
	return f.mismatch(f.node.integrity(-1, errors.New("it belongs under another name: the backing file was moved or swapped")))
}
