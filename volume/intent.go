package volume

import (
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

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
//	200  …   path of the directory and name in it that it comes from, then of
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
	vol  *Volume
	slot *slot // nil if the store has no room for one
	left bool  // the operation could not undo what it had begun
}

// intend publishes what an operation is about to do. The caller says done when
// it is done, or has undone it. An intent is drawn before any lock of a file, and
// before a slot of a change. Where there is no room for one, the operation goes
// on without: files can be removed from a full disk.
func (v *Volume) intend(in intent) *armedIntent {
	if v.shared != nil {
		return v.shared.intend(in)
	}
	if v.unsettled.count.Load() > 0 || v.late.count.Load() > 0 {
		_ = v.makeAllLate()
		v.settleIntents()
	}
	return v.arm(in)
}

// arm is intend without a look at what is left of others.
func (v *Volume) arm(in intent) *armedIntent {
	a := &armedIntent{intent: in, vol: v}
	s, err := v.redo.drawFrom(&v.redo.intents)
	if err != nil {
		v.log.Warn("no redo slot for an operation on names: killed now, it could leave a half", "error", err)
		return a
	}
	a.slot = s
	s.armIntent(v.redo.session, &in)
	return a
}

// done says that there is nothing to finish or undo any more, but for what is
// left: that is settled later.
func (a *armedIntent) done() {
	if a.vol.shared != nil {
		a.vol.shared.done(a)
		return
	}
	if a.left && a.vol.unsettled.add(a) {
		return
	}
	if a.slot != nil {
		a.vol.redo.drop(a.slot)
		a.slot = nil
	}
}

// leave says, of an operation that failed, that it could not undo what it had
// done, if err says so.
func (a *armedIntent) leave(err error) {
	if err != nil && err != unix.ENOENT {
		a.left = true
	}
}

// unsettledIntents are those whose operations were cut short: by a kill of the
// last mount, or by a store that failed them and what would have undone them.
type unsettledIntents struct {
	count atomic.Int32
	mu    sync.Mutex
	list  []*armedIntent
}

// add tells whether there was room: others need slots, too.
func (u *unsettledIntents) add(a *armedIntent) bool { return u.addUpTo(a, maxIntents/2) }

// inherit adds what a killed mount had under way, however much that is: nobody else
// needs slots before it is settled.
func (u *unsettledIntents) inherit(a *armedIntent) { _ = u.addUpTo(a, maxIntents) }

func (u *unsettledIntents) addUpTo(a *armedIntent, most int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.list) >= most {
		return false
	}
	if a.slot != nil {
		a.vol.redo.hold(a.slot, true)
	}
	u.list = append(u.list, a)
	u.count.Add(1)
	return true
}

// take empties the list.
func (u *unsettledIntents) take() []*armedIntent {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.list
	u.list = nil
	u.count.Store(0)
	return list
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
