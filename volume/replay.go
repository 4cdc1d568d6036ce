package volume

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// replay makes the changes again that a mount was in the middle of when it was
// killed, before anything else reads the volume. It returns how many there were.
// A change whose file is gone has nothing to be made on. What operations on names
// were under way is returned, to be settled once all changes are made.
//
// With logged it is after a power cut: only changes count that were durable in
// their slots before they were made. The rest of the file may be anything.
func (v *Volume) replay(session crypto.ID, logged bool) (done int, open []*intent, err error) {
	key := v.vk.Derive(crypto.LabelRedo)
	defer key.Wipe()
	fd, err := openPlain(v.backing, v.redoDir, session.String(), unix.O_RDWR)
	if err == unix.ENOENT {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("open redo slots %s/redo/%s: %w", metaDir, session, err)
	}
	defer v.backing.Close(fd)
	// Should this mount be killed while it has widened a mode.
	v.holdMode = func(c *change) error { return v.armSpare(fd, session, key, c) }
	defer func() { v.holdMode = nil }()
	if v.tight {
		if err := v.spareSlots(fd); err != nil {
			return 0, nil, err
		}
	}

	var header [slotHeader]byte
	for i := range maxSlots + maxIntents {
		off := int64(i) * slotSize
		if i >= maxSlots {
			off = intentsAt + int64(i-maxSlots)*slotHeader
		}
		if n, err := preadFull(v.backing, fd, header[:], off); err != nil {
			return done, nil, fmt.Errorf("read redo slot %d: %w", i, err)
		} else if n < slotHeader {
			break
		}
		if i >= maxSlots {
			if logged {
				break
			}
			if in, ok := parseIntent(header[:], session, key); ok {
				open = append(open, in)
			}
			continue
		}
		c, ok := parseSlot(header[:], session, key)
		if !ok || logged && c.flags&slotLogged == 0 {
			continue
		}
		made, err := v.redoChange(c, fd, off+slotHeader, logged)
		if err == nil && v.tight {
			err = v.spendSlot(fd, off)
		}
		if err != nil {
			return done, nil, fmt.Errorf("finish an interrupted change of backing file %q: %w", c.path, err)
		}
		if made {
			done++
		}
	}
	return done, open, nil
}

// isArmed tells whether a header is of a change or intent of this session that
// was under way. Nothing else in it is to be believed before.
func isArmed(h []byte, session crypto.ID, key *crypto.Key) bool {
	n := binary.LittleEndian.Uint32(h[4:])
	if binary.LittleEndian.Uint32(h) != slotArmed || n > slotMACAt-slotPathAt {
		return false
	}
	mac := key.MAC(h[4 : slotPathAt+n])
	return hmac.Equal(mac[:], h[slotMACAt:slotMACAt+sha256.Size]) && crypto.ID(h[8:24]) == session
}

// parseSlot reads an armed slot's header. Anything that this session did not
// write, and all that is out of bounds, is not a change.
func parseSlot(h []byte, session crypto.ID, key *crypto.Key) (*change, bool) {
	if !isArmed(h, session, key) {
		return nil, false
	}
	pathLen := int(binary.LittleEndian.Uint32(h[4:]))
	segments := int(binary.LittleEndian.Uint32(h[52:]))
	if segments < 0 || segments > slotSegments {
		return nil, false
	}
	c := &change{
		file:  crypto.ID(h[24:40]),
		ino:   binary.LittleEndian.Uint64(h[40:]),
		flags: binary.LittleEndian.Uint32(h[48:]),
		size:  int64(binary.LittleEndian.Uint64(h[56:])),
		mode:  binary.LittleEndian.Uint32(h[64:]),
		path:  string(h[slotPathAt : slotPathAt+pathLen]),
	}
	copy(c.sum[:], h[slotDigestAt:slotPathAt])
	c.punch.cipherOff = int64(binary.LittleEndian.Uint64(h[152:]))
	c.punch.len = int64(binary.LittleEndian.Uint64(h[160:]))
	m, a := getTime(h[72:]), getTime(h[88:])
	c.mtime = unix.StatxTimestamp{Sec: m.Sec, Nsec: uint32(m.Nsec)}
	c.atime = unix.StatxTimestamp{Sec: a.Sec, Nsec: uint32(a.Nsec)}
	for i := range segments {
		b := h[104+16*i:]
		seg := segment{
			cipherOff: int64(binary.LittleEndian.Uint64(b)),
			from:      int(binary.LittleEndian.Uint32(b[8:])),
			len:       int(binary.LittleEndian.Uint32(b[12:])),
		}
		if seg.cipherOff < crypto.RecordOffset || seg.from < 0 || seg.len < 0 || seg.from+seg.len > slotPayload {
			return nil, false
		}
		c.segments = append(c.segments, seg)
	}
	return c, true
}

// redoChange finds the file of a change and makes the change, whose payload is in
// slots at payloadOff; after a power cut only if the slot is whole, and the change
// not durable anyway.
func (v *Volume) redoChange(c *change, slots int, payloadOff int64, logged bool) (bool, error) {
	buf := make([]byte, slotPayload)
	for _, seg := range c.segments {
		n, err := preadFull(v.backing, slots, buf[seg.from:seg.from+seg.len], payloadOff+int64(seg.from))
		if err == nil && n < seg.len {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, err
		}
	}
	if logged && c.digest(buf) != c.sum {
		return false, nil // so it was not begun
	}
	fd, err := v.findChanged(c)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer v.backing.Close(fd)
	if logged {
		if stale, err := v.isStale(c, fd, buf); stale || err != nil {
			return false, err
		}
	}
	err = v.finish(fd, buf, c)
	if err == nil && v.tight && c.flags&slotMode == 0 {
		err = v.backing.Fdatasync(fd) // else the slot could not be spent
	}
	return true, err
}

// finish makes a change, from the start, on the file that is open as fd.
func (v *Volume) finish(fd int, payload []byte, c *change) error {
	if c.flags&slotMode != 0 {
		return v.backing.Fchmodat(fd, "", c.mode)
	}
	if err := v.apply(fd, payload, c); err != nil {
		return err
	}
	if c.flags&slotSpecial != 0 {
		if err := v.backing.Fchmodat(fd, "", c.mode); err != nil {
			return err
		}
	}
	if c.flags&slotTimes == 0 {
		return nil
	}
	return v.backing.Utimensat(fd, "", &[2]unix.Timespec{
		{Nsec: unix.UTIME_OMIT},
		{Sec: c.mtime.Sec, Nsec: int64(c.mtime.Nsec)},
	})
}

// findChanged opens the inode that a change is of: where its path says, or, if
// a directory above was renamed at that very moment, wherever it is now.
func (v *Volume) findChanged(c *change) (int, error) {
	flags := unix.O_RDWR | unix.O_NONBLOCK
	if c.flags&slotMode != 0 {
		flags = unix.O_PATH
	}
	if c.path != "" {
		if fd, err := v.openBeneath(c, flags); err != unix.ENOENT {
			return fd, err
		}
	}
	return v.searchChanged(c, flags)
}

// openBeneath opens a change's path one component at a time.
func (v *Volume) openBeneath(c *change, flags int) (int, error) {
	dir := v.rootDesc.fd
	parts := strings.Split(c.path, "/")
	for _, name := range parts[:len(parts)-1] {
		fd, err := v.backing.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if dir != v.rootDesc.fd {
			v.backing.Close(dir)
		}
		if err != nil {
			return -1, unix.ENOENT
		}
		dir = fd
	}
	if dir != v.rootDesc.fd {
		defer v.backing.Close(dir)
	}
	return v.openChanged(dir, parts[len(parts)-1], c, flags)
}

// openChanged opens an entry if it is the change's inode, or answers ENOENT.
func (v *Volume) openChanged(dirfd int, name string, c *change, flags int) (int, error) {
	var st unix.Statx_t
	if err := v.backing.Statx(dirfd, name, &st); err != nil || st.Ino != c.ino {
		return -1, unix.ENOENT
	}
	if c.flags&slotMode != 0 {
		return v.backing.Openat(dirfd, name, flags, 0)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, unix.ENOENT
	}
	fd, err := v.backing.Openat(dirfd, name, flags, 0)
	if err == unix.EACCES {
		fd, err = v.openAfterLift(dirfd, name, uint32(st.Mode), c, flags)
	}
	if err != nil {
		return -1, err
	}
	var head [crypto.RecordOffset]byte
	if _, err := preadFull(v.backing, fd, head[:], 0); err == nil {
		if id, err := crypto.HeaderFileID(head[:]); err == nil && id == c.file {
			return fd, nil
		}
	}
	v.backing.Close(fd)
	return -1, unix.ENOENT
}

// openAfterLift opens a file that was being written while its mode was lifted:
// its own slot has put the mode back already.
func (v *Volume) openAfterLift(dirfd int, name string, mode uint32, c *change, flags int) (int, error) {
	if v.holdMode != nil {
		if err := v.holdMode(&change{ino: c.ino, path: c.path, flags: slotMode, mode: mode & 0o7777}); err != nil {
			return -1, err
		}
	}
	if err := v.backing.Fchmodat(dirfd, name, mode&0o7777|0o600); err != nil {
		return -1, unix.EACCES
	}
	fd, err := v.backing.Openat(dirfd, name, flags, 0)
	if back := v.backing.Fchmodat(dirfd, name, mode&0o7777); err == nil && back != nil {
		v.backing.Close(fd)
		return -1, back
	}
	return fd, err
}

// armSpare writes a change into a slot of the killed session that is free, for
// the mount that follows if this one is killed, too. Where all are in use, it
// does without.
func (v *Volume) armSpare(fd int, session crypto.ID, key *crypto.Key, c *change) error {
	for i := range int64(maxSlots) {
		var state [4]byte
		if _, err := preadFull(v.backing, fd, state[:], i*slotSize); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(state[:]) == slotArmed {
			continue
		}
		s := slot{mem: make([]byte, slotHeader), key: key}
		s.arm(session, c)
		_, err := pwriteFull(v.backing, fd, s.mem, i*slotSize)
		return err
	}
	return nil
}

// searchChanged looks for the change's inode in the whole tree.
func (v *Volume) searchChanged(c *change, flags int) (fd int, err error) {
	fd = -1
	b := beneath{backing: v.backing}
	b.visit = func(dirfd int, e dirent, depth int) (into bool, err error) {
		if e.ino == c.ino {
			if fd, err = v.openChanged(dirfd, e.name, c, flags); err == nil {
				err = errFound
			}
			if !errors.Is(err, unix.ENOENT) {
				return false, err
			}
		}
		return e.kind == unix.S_IFDIR && (depth > 0 || e.name != metaDir), nil
	}
	b.closed = func(err error) error {
		if isStoreError(err) || errors.Is(err, errNoWayBack) {
			return err // it may be there
		}
		return nil
	}
	switch err := b.walk(v.rootDesc.fd); err {
	case errFound:
		return fd, nil
	case nil:
		return -1, unix.ENOENT
	default:
		return -1, err
	}
}
