package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// record checks a directory's record, and that the directory is where it says. It
// tells whether there is one.
func (c *fsck) record(e *fsckEntry) bool {
	n := e.node
	if n == c.vol.root {
		c.noteDir(c.vol.rootID, e)
		return true
	}
	var rec crypto.DirRecord
	missing, err := c.hasNoRecord(n)
	if err == nil {
		rec, err = n.readRecord()
	}
	if c.gone(err) {
		return false
	}
	if err != nil {
		f := c.find(FindingDirRecord, e, "%v", cause(err))
		if !errors.Is(err, ErrIntegrity) {
			f.left("the backing store does not give it, so it is left as it is")
			c.lookAway()
			c.hold(e, err)
			return false
		}
		if c.live {
			return false
		}
		id, kept, err := c.provenID(n)
		if err != nil {
			// Another ID would cost all names in it.
			f.mended(fmt.Errorf("what it says, and the names that go with it, cannot be read: %w", err), "")
			c.lookAway()
			c.hold(e, err)
			return false
		}
		if c.options.Repair {
			note, err := c.makeRecord(e, id, kept)
			f.mended(err, "%s", note)
		}
		n.mu.Lock()
		n.dir = &directory{id: id} // one that fits no name, if it is not known
		n.mu.Unlock()
		return false
	}
	if missing {
		c.find(FindingDirRecord, e, "it is missing").repaired("an interrupted removal had set it aside; it is put back")
	}
	c.noteDir(rec.ID, e)
	if e.broken {
		return true // nothing can be said of where it belongs
	}
	here, err := e.binding()
	if err != nil || rec.BindingA == here || rec.BindingB == here {
		return true
	}
	e.astray = true
	if c.live {
		c.settlePlace(e) // it may be renamed later
	} else {
		c.misplaced = append(c.misplaced, e)
	}
	return true
}

// noteDir keeps that the entry has the directory's ID.
func (c *fsck) noteDir(id crypto.ID, e *fsckEntry) {
	for _, other := range c.dirs[id] {
		if other.node == e.node {
			return // looked at twice, by paths that meet
		}
	}
	c.dirs[id] = append(c.dirs[id], e)
}

// settles tells whether seals are to be made to fit what is there.
func (c *fsck) settles() bool { return c.live && c.torn }

// binding is that of the entry's place.
func (e *fsckEntry) binding() ([16]byte, error) {
	id, err := e.dir.dirID()
	if err != nil {
		return [16]byte{}, err
	}
	return e.node.vol.binder.Binding(id, e.plain), nil
}

func (c *fsck) hasNoRecord(n *Node) (bool, error) {
	d, err := n.use()
	if err != nil {
		return false, err
	}
	defer d.release()
	_, err = n.readInside(d, recordName, crypto.DirRecordSize)
	if isStoreError(err) {
		return false, fmt.Errorf("read directory record of %q: %w", n.Path(), err)
	}
	return err == unix.ENOENT, nil
}

// makeRecord gives a directory a record in the place of one that is damaged or
// gone. Where the old one still tells the ID, and the names inside prove it, that
// stays; else the names are lost, and its entries get new ones at the end.
func (c *fsck) makeRecord(e *fsckEntry, id crypto.ID, kept bool) (note string, err error) {
	v, n := c.vol, e.node
	d, err := n.use()
	if err != nil {
		return "", err
	}
	defer d.release()
	if id.IsZero() {
		return "", errors.New("no ID could be drawn")
	}
	rec := crypto.DirRecord{ID: id}
	if !e.broken {
		if rec.BindingA, err = e.binding(); err != nil {
			return "", err
		}
	}
	var b [crypto.DirRecordSize]byte
	if err := v.dirs.Seal(b[:], v.random, rec); err != nil {
		return "", err
	}
	var old string
	if !kept {
		old, err = v.setAside(d.fd, recordName, e.backingPath()+"/"+recordName)
		if err != nil && err != unix.ENOENT {
			return "", err
		}
	}
	if err := v.replaceRecord(d.fd, id, b[:]); err != nil {
		return "", err
	}
	c.noteDir(id, e)
	note = "its record is made anew"
	if !kept {
		note += "; the names in it are lost with its ID, and its entries get new ones"
	}
	if old != "" {
		note += "; the damaged one is in " + old
	}
	return note, nil
}

// replaceRecord puts a new file in the place of a directory's record, or where one
// is missing.
func (v *Volume) replaceRecord(dirfd int, id crypto.ID, b []byte) error {
	tmp := tmpPrefix + id.String()
	if err := v.removeStale(dirfd, tmp); err != nil {
		return err
	}
	if err := writeNew(v.backing, dirfd, tmp, 0o600, b); err != nil {
		return err
	}
	return v.backing.Renameat2(dirfd, tmp, dirfd, recordName, 0)
}

// isShared tells, while mismatches are looked for or accepted, whether a record that
// is open as fd has other names, planted in other directories: what is written into
// it would change those, too.
func (v *Volume) isShared(fd int) bool {
	var st unix.Statx_t
	return (v.checking || v.accepting()) && v.backing.Statx(fd, "", &st) == nil && st.Nlink > 1
}

// removeStale removes what is in the way of a temporary.
func (v *Volume) removeStale(dirfd int, tmp string) error {
	err := v.backing.Unlinkat(dirfd, tmp, 0)
	if err == unix.ENOENT {
		err = nil
	}
	return err
}

// provenID reads the ID in the clear part of a damaged record, and tells whether a
// name in the directory decrypts with it. Else the ID is a new one. An error says
// that it could not be told.
func (c *fsck) provenID(n *Node) (id crypto.ID, kept bool, err error) {
	fresh, _ := crypto.NewID(c.vol.random)
	d, err := n.use()
	if err != nil {
		return fresh, false, err
	}
	defer d.release()
	b, err := n.readInside(d, recordName, crypto.DirRecordSize)
	if isStoreError(err) {
		return fresh, false, err
	}
	if err != nil {
		return fresh, false, nil
	}
	id, ok := crypto.DirRecordID(b)
	if !ok {
		return fresh, false, nil
	}
	entries, err := n.listInside(d)
	if err != nil {
		return fresh, false, err
	}
	var unread error
	for _, entry := range entries {
		if n.isOwn(entry.name) {
			continue
		}
		_, err := c.vol.decode(id, d.fd, entry.name)
		if err == nil {
			return id, true, nil
		}
		if isStoreError(err) {
			unread = err
		}
	}
	return fresh, false, unread
}

// leftovers looks at what interrupted operations left in a directory. While the
// volume is in use, they may be under way.
func (w *fsckWalk) leftovers(ctx context.Context, e *fsckEntry, inside *fsckInside) error {
	if w.live {
		return nil
	}
	for _, name := range inside.long {
		if inside.names[strings.TrimSuffix(name, crypto.LongSuffix)] {
			continue
		}
		w.leftover(e, name, "the file of a long name that nothing has")
	}
	for _, name := range inside.temporary {
		what, err := w.temporary(ctx, e.node, name)
		if err != nil {
			err = w.unreadable(&fsckEntry{dir: e.node, node: e.node, plain: name, backing: name}, err)
		}
		if err != nil {
			return err
		}
		if what != "" {
			w.leftover(e, name, what)
		}
	}
	return nil
}

const removedRecord = "the record of a directory that was removed"

// leftover notes what can be removed without a loss.
func (w *fsckWalk) leftover(parent *fsckEntry, name, what string) {
	e := &fsckEntry{dir: parent.node, node: parent.node, plain: parent.plain, backing: name}
	f := w.add(&Finding{Kind: FindingLeftover, Path: parent.path(), Backing: e.backingPath(), Block: -1, Problem: what, Harmless: true})
	if !w.options.Repair {
		return
	}
	w.mu.Lock()
	blind := w.blind
	w.mu.Unlock()
	if what == removedRecord && blind {
		f.left("something in the volume could not be looked at, and may be what it belongs to")
		return
	}
	d, err := parent.node.use()
	if err == nil {
		err = w.vol.searching(parent.node, d, func() error {
			w.vol.removeTemporary(d.fd, name)
			var st unix.Statx_t
			if err := w.vol.backing.Statx(d.fd, name, &st); err != unix.ENOENT {
				return fmt.Errorf("it is still there: %w", err)
			}
			return nil
		})
		d.release()
	}
	f.mended(err, "removed")
}

// temporary tells what a temporary is, or "" where it holds something: then it is
// an entry without a name, and looked at as one.
func (w *fsckWalk) temporary(ctx context.Context, n *Node, name string) (string, error) {
	d, err := n.use()
	if err != nil {
		return "", err
	}
	defer d.release()
	e, err := n.newFsckEntry(d, brokenName(name), name, true)
	if err != nil {
		return "", err
	}
	switch e.node.mode {
	case unix.S_IFDIR:
		entries, err := n.vol.listBelow(d.fd, name)
		if err != nil {
			return "", err
		}
		if len(entries) == 0 || len(entries) == 1 && entries[0].name == recordName {
			return "a directory that was being made", nil
		}
	case unix.S_IFREG:
		switch {
		case strings.HasPrefix(name, dataTmpPrefix):
			return "the copy that an interrupted reencrypt was making of a file", nil
		case e.size < crypto.HeaderSize:
			b, err := readSmall(n.vol.backing, d.fd, name, crypto.DirRecordSize)
			if isStoreError(err) {
				return "", err
			}
			if err == nil {
				if _, err = n.vol.dirs.Open(b); err == nil {
					return removedRecord, nil
				}
			}
			return "a file that was being made", nil
		}
	default:
		return "an entry that was being made", nil
	}
	return "", w.entry(ctx, e)
}

// listBelow lists the directory name below dirfd.
func (v *Volume) listBelow(dirfd int, name string) ([]dirent, error) {
	fd, err := v.backing.Openat(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer v.backing.Close(fd)
	return v.listBacking(fd)
}
