package volume

import (
	"encoding/binary"
	"strings"

	"kmsfs/crypto"
)

// An intent is what an operation on names is about to do, where it takes more
// than one step: it lies in a slot of the redo file from before the first step
// until after the last, and says enough for the next mount to finish or undo it
// (unfinished.go). Content is never at stake: what an intent saves is the user
// from seeing half of an operation, and the backing directory from leftovers.
//
// Slot layout, in a page; state, length of the text, session, text and HMAC are
// where those of a change are:
//
//	24  16   ID of the file, temporary or link target that is made or removed
//	40   8   inode number of what is moved
//	48   4   kind
//	52   4   flags (intentWhiteout and so on)
//	56   8   inode number of the directory that it comes from
//	64   8   inode number of the directory that it comes to
//	72   8   inode number of the directory that it replaces
//	168  …   path of the directory and name in it that it comes from, then of
//	         those that it comes to, each but the last with a NUL
type intent struct {
	kind  intentKind
	flags uint32
	id    crypto.ID
	moved uint64
	// displaced is an empty directory that makes room.
	displaced uint64
	from, to  entryAt
}

type intentKind uint32

const (
	intentCreate intentKind = 1 + iota // a data file at to, of file ID id
	intentMake                         // anything else at to, first under the temporary name of id
	intentUnlink                       // of from, with the long symlink target id
	intentRmdir                        // of from, whose record is under the temporary name of id meanwhile
	intentRename                       // of from to to, which may have the long symlink target id
	intentLink                         // of from at to
)

const (
	intentWhiteout = 1 << iota // leave one at from
	intentFirst                // link: the file had no second name so far
)

// entryAt is an entry of the backing directory.
type entryAt struct {
	dir  uint64 // inode number of its directory; 0 for no entry
	path string // of its directory, below BACKING; "" if not known, or for the root
	name string // its own
}

// entryIn is the entry backing of directory dir.
func entryIn(dir *Node, backing string) entryAt {
	return entryAt{dir: dir.key.ino, path: dir.BackingPath(), name: backing}
}

// armedIntent is an intent in its slot.
type armedIntent struct {
	intent
	redo *redoFile
	slot *slot // nil if the store has no room for one
}

// intend publishes what an operation is about to do. The caller says done when
// it is done, or has undone it. An intent is drawn before any lock of a file, and
// before a slot of a change. Where there is no room for one, the operation goes
// on without: files can be removed from a full disk.
func (v *Volume) intend(in intent) *armedIntent {
	a := &armedIntent{intent: in, redo: v.redo}
	s, err := v.redo.drawFrom(&v.redo.intents)
	if err != nil {
		v.log.Warn("no redo slot for an operation on names: killed now, it could leave a half", "error", err)
		return a
	}
	a.slot = s
	s.armIntent(v.redo.session, &in)
	return a
}

// done says that there is nothing to finish or undo any more.
func (a *armedIntent) done() {
	if a != nil && a.slot != nil {
		a.redo.drop(a.slot)
		a.slot = nil
	}
}

func (s *slot) armIntent(session crypto.ID, in *intent) {
	h := s.mem[:slotHeader]
	copy(h[24:], in.id[:])
	binary.LittleEndian.PutUint64(h[40:], in.moved)
	binary.LittleEndian.PutUint32(h[48:], uint32(in.kind))
	binary.LittleEndian.PutUint32(h[52:], in.flags)
	binary.LittleEndian.PutUint64(h[56:], in.from.dir)
	binary.LittleEndian.PutUint64(h[64:], in.to.dir)
	binary.LittleEndian.PutUint64(h[72:], in.displaced)
	text := func(from, to string) string {
		return from + "\x00" + in.from.name + "\x00" + to + "\x00" + in.to.name
	}
	t := text(in.from.path, in.to.path)
	if len(t) > slotMACAt-slotPathAt {
		t = text("", "") // the directories are found by a search instead
	}
	s.publish(session, t)
}

// parseIntent reads an armed slot's header. Anything that this session did not
// write is not an intent.
func parseIntent(h []byte, session crypto.ID, key *crypto.Key) (*intent, bool) {
	if !isArmed(h, session, key) {
		return nil, false
	}
	n := binary.LittleEndian.Uint32(h[4:])
	text := strings.Split(string(h[slotPathAt:slotPathAt+n]), "\x00")
	if len(text) != 4 {
		return nil, false
	}
	return &intent{
		kind:      intentKind(binary.LittleEndian.Uint32(h[48:])),
		flags:     binary.LittleEndian.Uint32(h[52:]),
		id:        crypto.ID(h[24:40]),
		moved:     binary.LittleEndian.Uint64(h[40:]),
		displaced: binary.LittleEndian.Uint64(h[72:]),
		from:      entryAt{binary.LittleEndian.Uint64(h[56:]), text[0], text[1]},
		to:        entryAt{binary.LittleEndian.Uint64(h[64:]), text[2], text[3]},
	}, true
}
