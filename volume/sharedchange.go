package volume

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// How a shared mount changes a file's content, under the content lock. A file that is
// being changed has a length that no file has, one byte behind a whole block; so
// everybody who sees it knows, a stat without the lock included.
//
//  1. The file is made that long, far enough for what follows.
//  2. Where the change overwrites or punches what was there, it is written to the very
//     end: payload of the segments, then the header of a redo slot, whose HMAC and
//     digest vouch for both. The new blocks behind the old end need none.
//  3. Blocks, and then the record, go to their places.
//  4. The file gets its length.
//
// Whoever takes the lock after one that was killed in between makes the change again
// if it stands whole at the end, and else gives the file the length that its record
// says. A file that bears no FlagShared gets it first, so that a mount that is not
// shared does the same.

// strangeTail is what is left for the last block of a file that is being changed, in
// bytes: too few for one.
const strangeTail = 1

// strangeLength is the first length of at least n bytes that says that a file is
// being changed.
func strangeLength(n int64) int64 {
	const block = crypto.CipherBlockSize
	past := (n - crypto.HeaderSize - strangeTail) % block
	if past < 0 {
		past += block
	}
	if past == 0 {
		return n
	}
	return n - past + block
}

// isStrange tells whether a backing file of that length is being changed by a shared
// mount, or was when that ended.
func isStrange(cipherSize int64) bool {
	return cipherSize > crypto.HeaderSize && (cipherSize-crypto.HeaderSize)%crypto.CipherBlockSize == strangeTail
}

// nextRecord is that of a change of the content: on a shared mount a file has no root.
func (w *writer) nextRecord() crypto.Record {
	next := w.file.nextRecord()
	if w.shared != nil {
		next.Flags |= crypto.FlagShared | crypto.FlagRootAbsent
		next.Root = [16]byte{}
	}
	return next
}

// images are what is written to the end of files.
var images = sync.Pool{New: func() any { return new([slotPayload + slotHeader]byte) }}

// carryOutShared is carryOut for a file of a shared mount.
func (w *writer) carryOutShared(next crypto.Record, after func()) error {
	old, err := crypto.CipherSize(int64(w.rec.Size))
	if err != nil {
		return unix.EFBIG
	}
	final, err := crypto.CipherSize(int64(next.Size))
	if err != nil {
		return unix.EFBIG
	}
	if w.rec.Flags&crypto.FlagShared == 0 {
		if err := w.announce(); err != nil {
			return err
		}
		next.Generation++
		if err := w.sealRecord(w.slot.payload()[:crypto.HeaderSize], next); err != nil {
			return err
		}
	}
	w.next = next
	w.shared.changed = true
	c := &w.change
	c.flags |= slotTruncate
	c.size = final

	w.content.Lock()
	defer w.content.Unlock()
	recorded := false
	if err = w.begin(max(old, final), w.overwrites(old)); err == nil {
		recorded, err = w.applyShared()
	}
	if recorded { // who comes next gives it its length, if we could not
		w.rec = next
		after()
		return err
	}
	if uerr := w.undo(); uerr != nil {
		w.tags.clear()
		w.node.vol.log.Warn("a change that failed half-way is finished or undone by who uses the file next",
			"path", w.node.Path(), "cause", err, "error", uerr)
	}
	return err
}

// announce sets FlagShared, and gives the root up.
func (w *writer) announce() error {
	rec := w.nextRecord()
	var header [crypto.HeaderSize]byte
	err := w.sealRecord(header[:], rec)
	if err == nil {
		_, err = pwriteFull(w.node.vol.backing, w.desc.fd, header[crypto.RecordOffset:], crypto.RecordOffset)
	}
	if err != nil {
		return fmt.Errorf("mark file as shared: %w", err)
	}
	w.content.Lock()
	w.rec = rec
	w.content.Unlock()
	return nil
}

// overwrites tells whether the change touches anything of a backing file of old bytes
// that has to be there if the change is not made.
func (w *writer) overwrites(old int64) bool {
	if w.change.flags&slotPunch != 0 {
		return true
	}
	for _, seg := range w.change.segments {
		if seg.cipherOff == crypto.RecordOffset {
			seg.cipherOff, seg.len = crypto.HeaderSize, seg.len-(crypto.HeaderSize-crypto.RecordOffset)
		}
		if seg.len > 0 && seg.cipherOff < old {
			return true
		}
	}
	return false
}

// begin makes the file longer than it is or will be, and writes the change to its end.
func (w *writer) begin(longest int64, logged bool) error {
	k, c, s := w.node.vol.backing, &w.change, w.slot
	room := int64(0)
	if logged {
		room = slotHeader
		for _, seg := range c.segments {
			room += int64(seg.len)
		}
	}
	length := strangeLength(longest + room + 1)
	if err := k.Ftruncate(w.desc.fd, length); err != nil || !logged {
		return err
	}
	header := *c
	header.file, header.ino, header.path = w.id, w.node.key.ino, ""
	header.flags |= slotLogged // with a digest
	s.arm(w.node.vol.redo.session, &header)
	defer s.disarm()
	buf := images.Get().(*[slotPayload + slotHeader]byte)
	defer images.Put(buf)
	image := buf[:0]
	for _, seg := range c.segments {
		image = append(image, s.payload()[seg.from:seg.from+seg.len]...)
	}
	image = append(image, s.mem[:slotHeader]...)
	_, err := pwriteFull(k, w.desc.fd, image, length-room)
	return err
}

// applyShared makes the change, the record last but for the length, and tells whether
// that was written.
func (w *writer) applyShared() (recorded bool, err error) {
	k, c, pay := w.node.vol.backing, &w.change, w.slot.payload()
	const record = crypto.HeaderSize - crypto.RecordOffset
	for _, seg := range c.segments {
		if seg.cipherOff == crypto.RecordOffset {
			seg = segment{crypto.HeaderSize, seg.from + record, seg.len - record}
		}
		if seg.len == 0 {
			continue
		}
		if _, err := pwriteFull(k, w.desc.fd, pay[seg.from:seg.from+seg.len], seg.cipherOff); err != nil {
			return false, err
		}
	}
	if c.flags&slotPunch != 0 {
		if err := k.Fallocate(w.desc.fd, punchHole, c.punch.cipherOff, c.punch.len); err != nil {
			return false, err
		}
	}
	if _, err := pwriteFull(k, w.desc.fd, pay[crypto.RecordOffset:crypto.HeaderSize], crypto.RecordOffset); err != nil {
		return false, err
	}
	return true, k.Ftruncate(w.desc.fd, c.size)
}

// finishInterrupted finishes or undoes what somebody left half-way who was changing
// the file, and takes over its record. The caller has the content lock, exclusively.
func (f *file) finishInterrupted() error {
	v := f.node.vol
	var st unix.Statx_t
	if err := v.backing.Statx(f.desc.fd, "", &st); err != nil {
		return err
	}
	if err := v.finishInterrupted(f.desc.fd, f.id, f.records, int64(st.Size)); err != nil {
		if isStoreError(err) {
			return err
		}
		return f.node.integrity(-1, err)
	}
	v.log.Info("finished or undid a change of a file that a shared mount had left half-way", "path", f.node.Path())
	err := f.revalidate()
	if err == errInterrupted {
		err = f.node.integrity(-1, err)
	}
	return err
}

// finishInterrupted is that for the file that is open as fd, whose length is strange.
func (v *Volume) finishInterrupted(fd int, id crypto.ID, records *crypto.RecordCipher, length int64) error {
	var header [crypto.HeaderSize]byte
	if _, err := preadFull(v.backing, fd, header[:], 0); err != nil {
		return err
	}
	rec, recErr := records.Open(header[:])
	c, payload, err := v.changeAtEnd(fd, id, length)
	if err != nil {
		return err
	}
	if c != nil {
		made := header
		copy(made[crypto.RecordOffset:], payload[crypto.RecordOffset:crypto.HeaderSize])
		next, err := records.Open(made[:])
		// Not one that was put there again after others had followed.
		if err == nil && (recErr != nil || made == header || next.Generation == rec.Generation+1) {
			return v.finish(fd, payload, c)
		}
	}
	if recErr != nil {
		return fmt.Errorf("record: %w", recErr)
	}
	size, err := crypto.CipherSize(int64(rec.Size))
	if err != nil {
		return err
	}
	if !isStrange(length) || length < size {
		return errors.New("it is shorter than its record says")
	}
	return v.backing.Ftruncate(fd, size)
}

// changeAtEnd is the change that stands at the end of a file of that length, with its
// payload; nil if there is none, or not all of it.
func (v *Volume) changeAtEnd(fd int, id crypto.ID, length int64) (*change, []byte, error) {
	from := length - slotHeader
	if !isStrange(length) || from < crypto.HeaderSize {
		return nil, nil, nil
	}
	h := make([]byte, slotHeader)
	if n, err := preadFull(v.backing, fd, h, from); err != nil || n < len(h) {
		return nil, nil, err
	}
	key := v.vk.Derive(crypto.LabelRedo)
	defer key.Wipe()
	c, ok := parseSlot(h, crypto.ID(h[8:24]), key)
	const needed = slotTruncate | slotLogged
	if !ok || c.file != id || c.flags&needed != needed {
		return nil, nil, nil
	}
	for _, seg := range c.segments {
		from -= int64(seg.len)
	}
	if from < crypto.HeaderSize {
		return nil, nil, nil
	}
	payload := make([]byte, slotPayload)
	for _, seg := range c.segments {
		n, err := preadFull(v.backing, fd, payload[seg.from:seg.from+seg.len], from)
		if err != nil {
			return nil, nil, err
		}
		if n < seg.len {
			return nil, nil, nil
		}
		from += int64(seg.len)
	}
	if c.digest(payload) != c.sum {
		return nil, nil, nil
	}
	return c, payload, nil
}

// finishShared is finishInterrupted for a mount that is not shared, of a file that is
// being opened as fd: header and st are what they are afterwards.
func (f *file) finishShared(fd int, header []byte, st *unix.Statx_t) error {
	v := f.node.vol
	if f.rec.Flags&crypto.FlagShared == 0 || v.readOnly {
		return nil // the size will not fit
	}
	if err := v.finishInterrupted(fd, f.id, f.records, int64(st.Size)); err != nil {
		if isStoreError(err) {
			return err
		}
		return f.node.integrity(-1, err)
	}
	v.log.Info("finished or undid a change of a file that a shared mount had left half-way", "path", f.node.Path())
	if _, err := preadFull(v.backing, fd, header, 0); err != nil {
		return err
	}
	var err error
	if f.rec, err = f.records.Open(header); err != nil {
		return f.node.integrity(-1, fmt.Errorf("record: %w", err))
	}
	return v.backing.Statx(fd, "", st)
}
