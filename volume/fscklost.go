package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// A file whose header has a damaged ID has lost its key, which is found by ID. It
// is one of those that no other file seems to use: the record tells which, since
// it opens with nothing but the right ID, and where the record is damaged, too, a
// block does. Nothing else is believed.
const (
	// maxIDTries is how many records are tried with how many IDs, in all: some
	// seconds. One try is a few microseconds.
	maxIDTries = 1 << 20
	// maxKeyTries is how many unused keys there may be for blocks to be tried with
	// them, as each is a call to the KMS; lostBlocks are tried of each file.
	maxKeyTries = 64
	lostBlocks  = 4
)

// seeksIDs tells whether it will be known which keys nothing uses.
func (c *fsck) seeksIDs() bool { return c.report.Whole && !c.live }

// seek keeps a file for settleLost, if that has not had it. It tells whether it did.
func (c *fsck) seek(e *fsckEntry) bool {
	if e.sought || !c.seeksIDs() {
		return false
	}
	e.sought = true
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = append(c.lost, e)
	return true
}

// settleLost looks for the IDs of files whose headers do not tell them, and then
// looks at these files.
func (c *fsck) settleLost(ctx context.Context) error {
	if len(c.lost) == 0 {
		return nil
	}
	var unused []crypto.ID
	for _, id := range c.sidecars {
		if len(c.files[id]) == 0 {
			unused = append(unused, id)
		}
	}
	// Which of a file's names was come upon first is chance.
	slices.SortFunc(c.lost, func(a, b *fsckEntry) int { return strings.Compare(a.path(), b.path()) })
	tries := maxIDTries
	w := fsckWalk{fsck: c}
	for _, e := range c.lost {
		look, err := c.settleID(ctx, e, unused, &tries)
		if err == nil && look {
			err = w.file(ctx, e) // one after the other: several may be names of one file
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settleID looks for the ID of one file, and puts it back. It tells whether there is
// anything to be looked at. Where something kept an ID from being tried, the file
// stays as it is: that may be the one.
func (c *fsck) settleID(ctx context.Context, e *fsckEntry, unused []crypto.ID, tries *int) (look bool, err error) {
	l, err := c.readLost(e)
	if err != nil {
		return false, c.unreadable(e, err)
	}
	defer l.close()
	id, found, err := l.findID(ctx, unused, tries)
	var refused errRefused
	switch {
	case err != nil:
		return false, err
	case !found && errors.As(l.untried, &refused):
		c.refuse(e, refused)
		c.lookAway() // its key seems to be one that nothing uses
		return false, nil
	case !found && l.untried != nil:
		return false, c.unreadable(e, l.untried)
	case !found || l.says(id):
		return true, nil
	}
	f := c.find(FindingHeader, e, "its file ID is damaged: it is %s, as its content proves with the key in %s, which nothing else uses", id, sidecarPath(id))
	if !c.options.Repair {
		c.note(e, id)
		c.lookAway()
		return false, nil
	}
	f.mended(l.putID(id), "it has its ID again")
	if !f.Repaired {
		c.note(e, id)
		c.lookAway()
	}
	return f.Repaired, nil
}

// lostFile is a data file that is open, whose header may say anything.
type lostFile struct {
	*fsck
	entry   *fsckEntry
	fd      int
	header  [crypto.HeaderSize]byte
	size    int64
	untried error // an errRefused, or what the store does not give: some key was not tried with some block
}

func (c *fsck) readLost(e *fsckEntry) (l *lostFile, err error) {
	n := e.node
	l = &lostFile{fsck: c, entry: e}
	n.mu.Lock()
	l.fd, _, err = n.openData(false)
	n.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var st unix.Statx_t
	got, err := preadFull(c.vol.backing, l.fd, l.header[:], 0)
	if err == nil && got < crypto.HeaderSize {
		err = io.ErrUnexpectedEOF // it had more
	}
	if err == nil {
		err = c.vol.backing.Statx(l.fd, "", &st)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	l.size = crypto.PlainSizeFloor(int64(st.Size))
	return l, nil
}

func (l *lostFile) close() { l.vol.backing.Close(l.fd) }

// findID finds an ID that the header does not tell, though the record or a block does.
func (l *lostFile) findID(ctx context.Context, unused []crypto.ID, tries *int) (id crypto.ID, found bool, err error) {
	says := crypto.ID(l.header[crypto.RecordOffset-len(id) : crypto.RecordOffset])
	for _, id := range append([]crypto.ID{says}, unused...) {
		if *tries--; *tries < 0 {
			l.doubt()
			return id, false, nil
		}
		if l.opens(id) {
			return id, true, ctx.Err()
		}
	}
	if l.size == 0 || slices.Contains(l.sidecars, says) || len(unused) > maxKeyTries {
		return says, false, ctx.Err()
	}
	for _, id := range unused {
		if found, err := l.decrypts(ctx, id); found || err != nil {
			return id, found, err
		}
	}
	return says, false, nil
}

// says tells whether the header has this ID, as it does by now if the file has
// another name that was looked at before.
func (l *lostFile) says(id crypto.ID) bool {
	was, err := crypto.HeaderFileID(l.header[:])
	return err == nil && was == id
}

// opens tells whether the record is that of the file with this ID.
func (l *lostFile) opens(id crypto.ID) bool {
	header := l.header
	crypto.PutHeaderFileID(header[:], id)
	records := crypto.NewRecordCipher(l.vol.vk, l.vol.id, id)
	defer records.Wipe()
	_, err := records.Open(header[:])
	return err == nil
}

// decrypts tells whether one of the first blocks is one of the file with this ID.
// Errors end the check.
func (l *lostFile) decrypts(ctx context.Context, id crypto.ID) (bool, error) {
	keys, err := l.keys.unlock(ctx, &file{node: l.entry.node, id: id})
	var bad *sidecarError
	var refused errRefused
	var unread *unreadSidecarError
	switch {
	case errors.As(err, &bad):
		return false, nil
	case errors.As(err, &refused), errors.As(err, &unread):
		l.untried = err
		return false, nil
	case err != nil:
		return false, err
	}
	defer keys.release()
	for index := range min(crypto.BlockCount(l.size), lostBlocks) {
		n := crypto.BlockLen(l.size, index)
		record := make([]byte, crypto.CipherLen(n))
		got, err := preadFull(l.vol.backing, l.fd, record, crypto.BlockOffset(index))
		if err != nil {
			l.untried = fmt.Errorf("read block %d: %w", index, err)
			continue
		}
		if got < len(record) {
			break
		}
		plain := getScratch()
		err = keys.blocks.Open(plain.plain[:n], record, index)
		plain.put()
		if err == nil {
			return true, nil
		}
	}
	return false, nil
}

// putID writes the ID into the header, by one write within a page, and leaves the
// time of modification.
func (l *lostFile) putID(id crypto.ID) error {
	k, n := l.vol.backing, l.entry.node
	n.mu.Lock()
	fd, _, err := n.openData(true)
	n.mu.Unlock()
	if err != nil {
		return err
	}
	defer k.Close(fd)
	var st unix.Statx_t
	if err := k.Statx(fd, "", &st); err != nil {
		return err
	}
	crypto.PutHeaderFileID(l.header[:], id)
	if _, err := pwriteFull(k, fd, l.header[:crypto.RecordOffset], 0); err != nil {
		return fmt.Errorf("write file ID: %w", err)
	}
	return k.Utimensat(fd, "", &[2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}})
}
