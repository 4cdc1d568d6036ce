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
// A change whose file is gone has nothing to be made on.
func (v *Volume) replay(session crypto.ID) (int, error) {
	key := v.vk.Derive(crypto.LabelRedo)
	defer key.Wipe()
	fd, err := openPlain(v.backing, v.redoDir, session.String(), unix.O_RDONLY)
	if err == unix.ENOENT {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open redo slots %s/redo/%s: %w", metaDir, session, err)
	}
	defer v.backing.Close(fd)

	done := 0
	var header [slotHeader]byte
	for i := range maxSlots {
		off := int64(i) * slotSize
		if n, err := preadFull(v.backing, fd, header[:], off); err != nil {
			return done, fmt.Errorf("read redo slot %d: %w", i, err)
		} else if n < slotHeader {
			break
		}
		c, ok := parseSlot(header[:], session, key)
		if !ok {
			continue
		}
		made, err := v.redoChange(c, fd, off+slotHeader)
		if err != nil {
			return done, fmt.Errorf("finish an interrupted change of backing file %q: %w", c.path, err)
		}
		if made {
			done++
		}
	}
	return done, nil
}

// parseSlot reads an armed slot's header. Anything that this session did not
// write, and all that is out of bounds, is not a change.
func parseSlot(h []byte, session crypto.ID, key *crypto.Key) (*change, bool) {
	if binary.LittleEndian.Uint32(h) != slotArmed {
		return nil, false
	}
	pathLen := int(binary.LittleEndian.Uint32(h[4:]))
	segments := int(binary.LittleEndian.Uint32(h[52:]))
	if pathLen < 0 || pathLen > slotMACAt-slotPathAt || segments < 0 || segments > slotSegments {
		return nil, false
	}
	mac := key.MAC(h[4 : slotPathAt+pathLen])
	if !hmac.Equal(mac[:], h[slotMACAt:slotMACAt+sha256.Size]) || crypto.ID(h[8:24]) != session {
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

// redoChange finds the file of a change and makes the change; the payload is
// in slots at payloadOff.
func (v *Volume) redoChange(c *change, slots int, payloadOff int64) (bool, error) {
	fd, err := v.findChanged(c)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer v.backing.Close(fd)
	if c.flags&slotMode != 0 {
		return true, v.backing.Fchmodat(fd, "", c.mode)
	}
	buf := make([]byte, slotPayload)
	for _, seg := range c.segments {
		b := buf[:seg.len]
		n, err := preadFull(v.backing, slots, b, payloadOff+int64(seg.from))
		if err == nil && n < len(b) {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			_, err = pwriteFull(v.backing, fd, b, seg.cipherOff)
		}
		if err != nil {
			return false, err
		}
	}
	if c.flags&slotPunch != 0 {
		if err := v.backing.Fallocate(fd, punchHole, c.punch.cipherOff, c.punch.len); err != nil {
			return false, err
		}
	}
	if c.flags&slotTruncate != 0 {
		if err := v.backing.Ftruncate(fd, c.size); err != nil {
			return false, err
		}
	}
	if c.flags&slotTimes != 0 {
		return true, v.backing.Utimensat(fd, "", &[2]unix.Timespec{
			{Nsec: unix.UTIME_OMIT},
			{Sec: c.mtime.Sec, Nsec: int64(c.mtime.Nsec)},
		})
	}
	return true, nil
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
	return v.searchChanged(v.rootDesc.fd, c, flags, 0)
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
		fd, err = v.openAfterLift(dirfd, name, uint32(st.Mode), flags)
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
func (v *Volume) openAfterLift(dirfd int, name string, mode uint32, flags int) (int, error) {
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

const maxSearchDepth = 2048

// searchChanged looks for the change's inode in the whole tree.
func (v *Volume) searchChanged(dirfd int, c *change, flags, depth int) (int, error) {
	if depth > maxSearchDepth {
		return -1, unix.ENOENT
	}
	entries, err := v.listBacking(dirfd)
	if err != nil {
		return -1, err
	}
	for _, e := range entries {
		if e.ino == c.ino {
			if fd, err := v.openChanged(dirfd, e.name, c, flags); !errors.Is(err, unix.ENOENT) {
				return fd, err
			}
		}
		if e.kind != unix.S_IFDIR || (depth == 0 && e.name == metaDir) {
			continue
		}
		sub, err := v.backing.Openat(dirfd, e.name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			continue
		}
		fd, err := v.searchChanged(sub, c, flags, depth+1)
		v.backing.Close(sub)
		if !errors.Is(err, unix.ENOENT) {
			return fd, err
		}
	}
	return -1, unix.ENOENT
}
