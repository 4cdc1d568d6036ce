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
	first := c.note(e, f)
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
	switch {
	case errors.As(err, &bad):
		e.keyless = true
		c.find(FindingSidecar, e, "%v", bad).
			left("nobody can read the file; put %s back from a backup, or remove the file", sidecarPath(f.id))
		return nil
	case errors.As(err, &refused):
		c.mu.Lock()
		c.refused = true
		c.mu.Unlock()
		c.find(FindingRefused, e, "%v", refused).left("it could not be checked, and is left as it is")
		return nil
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
		}
	case errors.Is(err, crypto.ErrMalformed):
		kind := FindingHeader
		if e.broken {
			kind, e.told = FindingForeign, true
		}
		f := c.find(kind, e, "%v", bad.Err)
		if c.options.Repair {
			c.setAside(f, e)
		} else {
			c.lookAway() // some sidecar may be its
		}
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
func (c *fsck) note(e *fsckEntry, f *file) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.files[f.id] {
		if other.node.key == e.node.key {
			return false
		}
	}
	c.files[f.id] = append(c.files[f.id], e)
	return true
}

// misplaced is a name under which a file is that it does not belong to.
type misplaced struct {
	entry *fsckEntry
	id    crypto.ID
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
	c.misplaced = append(c.misplaced, &misplaced{e, f.id})
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

// contentState is what a file's blocks say.
type contentState struct {
	disk       crypto.Record // as it is on disk
	generation uint64        // of the state in memory
	cipherSize int64
	size       int64
	stored     uint64
	root       [16]byte
	damaged    uint64     // blocks
	bad        []badBlock // the first of them
	holes      uint64     // where none can be
	erased     []uint64   // the first of them
}

type badBlock struct {
	index uint64
	tag   [crypto.TagSize]byte
	err   error
}

// namedBlocks is how many blocks of a file are named one by one.
const namedBlocks = 100

func (s *contentState) spoil(b badBlock) {
	if s.damaged++; s.damaged <= namedBlocks {
		s.bad = append(s.bad, b)
	}
}

func (s *contentState) erase(index uint64) {
	if s.holes++; s.holes <= namedBlocks {
		s.erased = append(s.erased, index)
	}
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
	j.seals, j.blocks = nil, nil
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
	return j.pass(ctx)
}

// read goes over the blocks; nil if the file was changed meanwhile.
func (c *fsck) read(ctx context.Context, f *file, keys *fileKeys) (*contentState, error) {
	s := new(contentState)
	var st unix.Statx_t
	f.content.RLock()
	err := f.node.vol.backing.Statx(f.desc.fd, "", &st)
	if err == nil && !f.lost {
		s.disk, err = f.diskRecord()
	}
	s.generation, s.size, s.cipherSize = f.rec.Generation, int64(f.rec.Size), int64(st.Size)
	f.content.RUnlock()
	if err != nil {
		return nil, err
	}
	dense := !f.lost && s.disk.Stored >= crypto.BlockCount(s.size)
	for index := uint64(0); index < crypto.BlockCount(s.size); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		next, err := c.readBlocks(f, keys, s, index, dense)
		if err != nil || next == 0 {
			return nil, err
		}
		index = next
	}
	f.content.RLock()
	defer f.content.RUnlock()
	if f.rec.Generation != s.generation {
		return nil, nil
	}
	return s, nil
}

// diskRecord reads the record anew. The caller holds f.content or f.write.
func (f *file) diskRecord() (crypto.Record, error) {
	var header [crypto.HeaderSize]byte
	if _, err := preadFull(f.node.vol.backing, f.desc.fd, header[:], 0); err != nil {
		return crypto.Record{}, err
	}
	r, err := f.records.Open(header[:])
	if err != nil {
		return r, f.node.integrity(-1, err)
	}
	return r, nil
}

// readBlocks decrypts some blocks from index on, passing over what the backing
// file does not hold, and returns the next one; 0 if the file was changed.
func (c *fsck) readBlocks(f *file, keys *fileKeys, s *contentState, index uint64, dense bool) (uint64, error) {
	f.content.RLock()
	defer f.content.RUnlock()
	if f.rec.Generation != s.generation {
		return 0, nil
	}
	count := crypto.BlockCount(s.size)
	from, err := f.nextData(index)
	if err != nil {
		return 0, err
	}
	for ; index < min(from, count); index++ {
		if !dense {
			index = min(from, count)
			break
		}
		s.erase(index)
	}
	if index >= count {
		return count, nil
	}
	end := min(index+maxWrite/crypto.BlockSize, count)
	buf := spans.Get().(*[spanSize]byte)
	defer spans.Put(buf)
	span := buf[:crypto.BlockOffset(end-1)-crypto.BlockOffset(index)+int64(crypto.CipherLen(crypto.BlockLen(s.size, end-1)))]
	if err := f.readSpan(span, index); err != nil {
		return 0, err
	}
	s.stored += keys.rooter.XORRecords(&s.root, span, index)
	plain := getScratch()
	defer plain.put()
	c.mu.Lock()
	c.report.Blocks += int64(end - index)
	c.mu.Unlock()
	for rest := span; index < end; index++ {
		n := crypto.BlockLen(s.size, index)
		record := rest[:crypto.CipherLen(n)]
		rest = rest[len(record):]
		if crypto.IsHole(record) {
			if dense {
				s.erase(index)
			}
			continue
		}
		if err := keys.blocks.Open(plain.plain[:n], record, index); err != nil {
			s.spoil(badBlock{index, crypto.RecordTag(record), err})
		}
	}
	return end, nil
}
