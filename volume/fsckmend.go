package volume

import (
	"errors"
	"fmt"
	"slices"

	"kmsfs/crypto"
)

// judgement is what a check of a file's content comes to.
//
// A repair makes the record fit what is there, so that all blocks that
// authenticate can be read afterwards:
//
//	size, stored, root   that of the blocks that are there, if all authenticate
//	torn tail            cut off: it holds no content
//	padding not written  the old short tail is read and padded
//	damaged last block, with a wrong size   set aside, and the file ends before it
//	other damaged blocks stay damaged; where the size is right, so does the record,
//	                     so that a block put back from a backup fits again, unless
//	                     a power cut also left blocks unwritten
//	erased blocks        stay an error, but after a power cut, which is known to
//	                     leave blocks unwritten
//	record               made anew, if a block proves the file's ID and key
type judgement struct {
	*fsck
	entry *fsckEntry
	file  *file
	keys  *fileKeys
	state *contentState
	slot  *slot // held, with file.write, while nobody else may write

	seals  []*Finding // of the record, all mended by one new record
	blocks []*Finding
	tail   *oldTail
}

// findings are all about the file.
func (j *judgement) findings() []*Finding {
	all := slices.Concat(j.seals, j.blocks)
	if j.tail != nil {
		all = append(all, j.tail.finding)
	}
	return all
}

// errChanged: the file was changed since it was looked at.
var errChanged = errors.New("it is being changed")

// pass reports and mends; again says that the file was changed meanwhile.
func (j *judgement) pass() (again bool, err error) {
	s := j.state
	size, sizeErr := crypto.PlainSize(s.cipherSize)
	resized := sizeErr != nil || !j.file.lost && uint64(size) != s.disk.Size
	switch {
	case j.file.lost:
		j.seal(FindingRecord, "its record is damaged")
	case sizeErr != nil:
		j.seal(FindingTornTail, "it ends with %d bytes that hold no content; its record says %d bytes of content, %d are there",
			(s.cipherSize-crypto.HeaderSize)%crypto.CipherBlockSize, s.disk.Size, s.size)
	case resized:
		j.seal(FindingSize, "%d bytes of content are there, its record says %d", s.size, s.disk.Size)
	case s.damaged > 0 || s.holes > 0: // which explains the others
	case s.stored != s.disk.Stored:
		j.seal(FindingStored, "%d blocks are stored, its record says %d", s.stored, s.disk.Stored)
	case s.disk.HasRoot() && s.root != s.disk.Root:
		j.seal(FindingRoot, "%v", errRoot)
	case !s.disk.HasRoot():
		j.seal(FindingNoRoot, "no root of its blocks was kept").Harmless = true
	}
	j.nameBlocks(resized || j.file.lost)
	if j.options.Repair || j.settles() {
		if again, err = j.mend(resized); again || err != nil {
			return again, err
		}
	}
	j.entry.sound = true
	for _, f := range j.findings() {
		j.entry.sound = j.entry.sound && (f.Harmless || f.Repaired)
		j.add(f)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.report.Bytes += s.size
	return false, nil
}

func (j *judgement) finding(kind FindingKind, block int64, format string, args ...any) *Finding {
	e := j.entry
	return &Finding{Kind: kind, Path: e.path(), Backing: e.backingPath(), Block: block, Problem: fmt.Sprintf(format, args...)}
}

func (j *judgement) seal(kind FindingKind, format string, args ...any) *Finding {
	f := j.finding(kind, -1, format, args...)
	j.seals = append(j.seals, f)
	return f
}

// nameBlocks names damaged and erased blocks. Of a file whose size is wrong, no
// count says where holes can be.
func (j *judgement) nameBlocks(resized bool) {
	s := j.state
	for _, b := range s.bad {
		j.blocks = append(j.blocks, j.finding(FindingBlock, int64(b.index), "%v", b.err))
	}
	if more := s.damaged - uint64(len(s.bad)); more > 0 {
		j.blocks = append(j.blocks, j.finding(FindingBlock, -1, "%d more blocks are damaged", more))
	}
	if resized {
		return
	}
	for _, index := range s.erased {
		j.blocks = append(j.blocks, j.finding(FindingErased, int64(index), "%v", errHole))
	}
	if more := s.holes - uint64(len(s.erased)); more > 0 {
		j.blocks = append(j.blocks, j.finding(FindingErased, -1, "%d more blocks were erased", more))
	}
}

// mend makes the record fit the blocks, where that loses nothing.
func (j *judgement) mend(resized bool) (again bool, err error) {
	s := j.state
	note := "its record says what is there from now on"
	switch {
	case len(j.seals)+len(j.blocks) == 0:
		return false, nil
	case j.file.lost && !j.proven():
		return false, j.hopeless()
	case s.damaged > 0 && !resized && !j.file.lost && !(s.holes > 0 && j.torn):
		j.leave("it cannot be read; all others can")
		return false, nil
	case s.holes > 0 && !resized && !j.file.lost && !j.torn:
		j.leave("it cannot be read; all others can")
		return false, nil
	}
	if resized && !j.file.lost {
		if err := j.padOldTail(); err != nil {
			j.leaveAll(err)
			return false, nil
		}
	}
	cut := s.cipherSize != mustCipherSize(s.size)
	if resized && !j.live && s.damaged == 1 && s.bad[0].index == crypto.BlockCount(s.size)-1 {
		where, err := j.setTailAside()
		if err != nil {
			j.leaveAll(err)
			return false, nil
		}
		j.blocks[0].repaired("it was torn: what is there of it is set aside in %s, and the file ends before it", where)
		j.blocks = j.blocks[:1]
		cut = true
	} else if s.damaged > 0 {
		j.leave("it cannot be read; all others can")
	}
	switch err := j.reseal(cut); {
	case errors.Is(err, errChanged):
		return true, nil
	case err != nil:
		j.leaveAll(err)
		return false, nil
	}
	for _, f := range j.seals {
		f.repaired("%s", note)
	}
	for _, f := range j.blocks {
		if f.Kind == FindingErased {
			f.repaired("after a power cut it is taken for one that was never written; it reads as zeros")
		}
	}
	if t := j.tail; t != nil {
		t.finding.repaired("it was about to be padded: its %d bytes are brought back, and zeros behind them", t.was)
	}
	return false, nil
}

func (j *judgement) leave(note string) {
	for _, f := range j.blocks {
		f.left("%s", note)
	}
	for _, f := range j.seals {
		f.left("left as it is while a block is damaged")
	}
}

func (j *judgement) leaveAll(err error) {
	for _, f := range j.findings() {
		f.mended(err, "")
	}
	j.lookAway()
}

// proven tells whether some block authenticates with the key of the ID that a
// damaged header tells; of a file without content there is nothing to be proven.
func (j *judgement) proven() bool {
	return j.state.stored > j.state.damaged || j.state.size == 0
}

// hopeless sets a file aside of which nothing can be read.
func (j *judgement) hopeless() error {
	f := j.seals[0]
	j.fsck.setAside(f, j.entry)
	for _, b := range j.blocks {
		b.Repaired, b.Note = f.Repaired, f.Note
	}
	return nil
}

// reseal writes a record that says what the blocks are; with cut, the backing
// file ends behind them.
func (j *judgement) reseal(cut bool) error {
	writable, err := j.entry.node.openFile(true)
	if err != nil {
		return err
	}
	defer writable.release()
	f, s := j.file, j.state
	slot := j.slot // if nobody writes it meanwhile
	if slot == nil {
		if slot, err = j.vol.redo.draw(); err != nil {
			return err
		}
		defer j.vol.redo.drop(slot)
		f.write.Lock()
		defer f.write.Unlock()
	}
	if f.rec.Generation != s.generation {
		return errChanged
	}
	if cut || j.tail != nil {
		err = j.rewrite(slot, cut)
	} else {
		err = f.rewriteIn(slot, func(r *crypto.Record) bool {
			j.describe(r)
			return true
		})
	}
	if err == nil {
		f.accepted.Store(false)
	}
	return err
}

// describe makes r say what the blocks are.
func (j *judgement) describe(r *crypto.Record) {
	s := j.state
	r.Size, r.Stored, r.Root = uint64(s.size), s.stored, s.root
	r.Flags &^= crypto.FlagRootAbsent | crypto.FlagShared
	if !j.file.lost {
		return
	}
	if j.entry.nlink > 1 {
		r.Flags |= crypto.FlagLinked
	} else if here, err := j.entry.binding(); err == nil {
		r.BindingA = here
	}
}
