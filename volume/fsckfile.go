package volume

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// file checks a data file: its header, where it belongs, its key, and each block.
func (w *fsckWalk) file(ctx context.Context, e *fsckEntry) error {
	c, n := w.fsck, e.node
	work := crypto.PlainSizeFloor(e.size) + fileWork
	defer func() { c.progress(work) }()
	if c.live {
		if err := c.vol.begin(ordinary); err != nil {
			return err
		}
		defer c.vol.end()
		n.mu.Lock()
		used := n.file != nil
		n.mu.Unlock()
		if !used {
			defer n.Forget()
		}
	} else {
		defer n.Forget()
	}
	f, err := c.open(e)
	if f == nil {
		return err
	}
	defer f.release()
	if f.lost && c.seek(e) {
		return nil
	}
	first := c.note(e, f.id)
	if !e.broken && !f.lost {
		c.checkPlace(e, f)
	}
	if !first {
		return nil
	}
	c.tally(&c.report.Files)
	c.xattrs(e)
	keys, err := c.keys.unlock(ctx, f)
	var bad *sidecarError
	var refused errRefused
	var unread *unreadSidecarError
	if err != nil && f.lost {
		c.doubt()
	}
	switch {
	case errors.As(err, &bad):
		e.keyless = true
		c.find(FindingSidecar, e, "%v", bad).
			left("nobody can read the file; put %s back from a backup, or remove the file", sidecarPath(f.id))
		return nil
	case errors.As(err, &refused):
		c.refuse(e, refused)
		return nil
	case errors.As(err, &unread):
		return c.unreadable(e, err)
	case err != nil:
		return err
	}
	defer keys.release()
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.slots }()
	return c.content(ctx, e, f, keys)
}

// refuse notes that the KMS denies a key without which a file cannot be checked.
func (c *fsck) refuse(e *fsckEntry, err errRefused) {
	c.mu.Lock()
	c.refused = true
	c.mu.Unlock()
	c.find(FindingRefused, e, "%v", err).left("it could not be checked, and is left as it is")
}

// open loads a file's state; nil if there is nothing to go on with.
func (c *fsck) open(e *fsckEntry) (f *file, err error) {
	n := e.node
	f, err = n.openFile(false)
	var bad *IntegrityError
	switch {
	case err == nil:
		return f, nil
	case !errors.As(err, &bad):
		return nil, c.unreadable(e, err)
	case c.live:
		c.find(FindingRecord, e, "%v", bad.Err)
		return nil, nil
	}
	if f, err = n.openLost(); err == nil {
		return f, nil
	}
	switch {
	case e.size < crypto.HeaderSize:
		f := c.find(FindingHeader, e, "%v", bad.Err)
		if c.options.Repair {
			c.setAside(f, e)
			c.notSettled(f) // it has an ID all the same
		}
	case errors.Is(err, crypto.ErrMalformed) && c.seek(e):
		return nil, nil
	case errors.Is(err, crypto.ErrMalformed):
		kind := FindingHeader
		if e.broken {
			kind, e.told = FindingForeign, true
		}
		f := c.find(kind, e, "%v", bad.Err)
		if c.options.Repair {
			c.setAside(f, e)
		}
		c.notSettled(f) // some sidecar may be its
	default:
		return nil, c.unreadable(e, err)
	}
	return nil, nil
}

// openLost loads a file whose record is damaged, by what its header says of its
// ID and its length of its size. Nothing of it is proven before its blocks are.
func (n *Node) openLost() (*file, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fd, writable, err := n.openData(false)
	if err != nil {
		return nil, err
	}
	var header [crypto.HeaderSize]byte
	var st unix.Statx_t
	_, err = preadFull(n.vol.backing, fd, header[:], 0)
	if err == nil {
		err = n.vol.backing.Statx(fd, "", &st)
	}
	var id crypto.ID
	if err == nil {
		if id, err = crypto.HeaderFileID(header[:]); err == nil && st.Size < crypto.HeaderSize {
			err = crypto.ErrMalformed
		}
	}
	if err != nil {
		n.vol.backing.Close(fd)
		return nil, err
	}
	f := &file{lost: true, node: n, id: id, records: crypto.NewRecordCipher(n.vol.vk, n.vol.id, id)}
	f.rec = crypto.Record{Flags: crypto.FlagRootAbsent, Size: uint64(crypto.PlainSizeFloor(int64(st.Size)))}
	f.accepted.Store(true)
	n.adopt(f, fd, writable)
	n.desc.take()
	return f, nil
}

// note keeps that the entry has the file's ID, and tells whether its inode was
// not seen before.
func (c *fsck) note(e *fsckEntry, id crypto.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.files[id] {
		if other.node.key == e.node.key {
			other.others = append(other.others, e)
			return false
		}
	}
	c.files[id] = append(c.files[id], e)
	return true
}

// checkPlace compares the binding with this very name. What is to be done depends
// on whether it is a copy, which the end of the walk will tell.
func (c *fsck) checkPlace(e *fsckEntry, f *file) {
	f.content.RLock()
	rec := f.rec
	f.content.RUnlock()
	if rec.Linked() {
		return
	}
	here, err := e.binding()
	if err != nil || rec.BindingA == here || rec.BindingB == here {
		return
	}
	if c.live && !e.isThere() {
		return // renamed meanwhile
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.astray = true
	c.misplaced = append(c.misplaced, e)
}

// isThere tells whether the entry is where it was found.
func (e *fsckEntry) isThere() bool {
	for _, p := range e.node.known() {
		if p.parent == e.dir && p.backing == e.backing {
			return true
		}
	}
	return false
}

// content checks all blocks of a file and what its record says of them, and mends
// the record. A file that is being written is looked at again; the third time its
// writers wait.
func (c *fsck) content(ctx context.Context, e *fsckEntry, f *file, keys *fileKeys) error {
	j := judgement{fsck: c, entry: e, file: f, keys: keys}
	for try := 1; ; try++ {
		var again bool
		var err error
		if try < 3 {
			again, err = j.look(ctx)
		} else {
			again, err = j.lookAlone(ctx)
		}
		if !again || err != nil {
			return err
		}
	}
}

// lookAlone looks at a file while nobody writes it.
func (j *judgement) lookAlone(ctx context.Context) (again bool, err error) {
	if j.vol.redo != nil {
		s, err := j.vol.redo.draw()
		if err != nil {
			return false, err
		}
		defer j.vol.redo.drop(s)
		j.slot = s
		defer func() { j.slot = nil }()
	}
	j.file.write.Lock()
	defer j.file.write.Unlock()
	return j.look(ctx)
}

// look reads a file, and judges it; again says that it was changed meanwhile.
func (j *judgement) look(ctx context.Context) (again bool, err error) {
	j.seals, j.blocks, j.tail = nil, nil, nil
	j.state, err = j.read(ctx, j.file, j.keys)
	var bad *IntegrityError
	switch {
	case errors.As(err, &bad): // it was cut meanwhile
		if !j.live {
			j.find(FindingSize, j.entry, "%v", bad.Err)
		}
		return false, nil
	case err != nil:
		return false, j.unreadable(j.entry, err)
	case j.state == nil:
		return true, nil
	}
	return j.pass()
}
