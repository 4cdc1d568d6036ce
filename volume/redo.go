package volume

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// A redo slot holds one change of a file before it is made: what to write
// where, how to cut the file, which times and mode to put back. The slots are
// memory shared with .kmsfs/redo/<session>, so they outlive kill -9 at no cost
// of a copy: blocks are sealed into the slot and written from there. The next
// mount makes every armed change again (replay.go), so that a block is old or
// new, and sizes and records agree.
//
// Slot layout: one header page, then the payload.
//
//	0    4   state: 0 free, 1 armed (written last, cleared first)
//	4    4   length of the path
//	8   16   session
//	24  16   file ID
//	40   8   inode number
//	48   4   flags (slotTruncate and so on)
//	52   4   number of segments
//	56   8   size to cut or extend the backing file to
//	64   4   mode to put back
//	72  16   modification time to put back (seconds, nanoseconds)
//	88  16   access time, likewise
//	104 48   three segments: cipherOff u64, payload offset u32, length u32
//	152 16   range to punch out (cipherOff u64, length u64)
//	168 32   SHA-256 of the segments' payload (slotLogged), else zeros
//	200  …   path of the backing file below BACKING (may be empty)
//	4064 32  HMAC-SHA-256 (label redo) of bytes 4 to the end of the path
//
// Blocks and records authenticate themselves; the digest tells whether a slot that
// a power cut may have torn is whole (log.go).
const (
	slotHeader   = 4096
	slotMACAt    = slotHeader - 32
	slotDigestAt = 168
	slotPathAt   = 200
	slotSegments = 3
	slotArmed    = 1

	// The payload has room for a record, the padding of an old tail and the
	// blocks that 1 MiB at any offset touches.
	slotRecordAt = 0
	slotPadAt    = crypto.HeaderSize + (maxWriteBlocks)*crypto.CipherBlockSize
	slotPayload  = slotPadAt + crypto.CipherBlockSize
	slotSize     = (slotHeader + slotPayload + 4095) &^ 4095

	maxWriteBlocks = maxWrite/crypto.BlockSize + 1
	maxSlots       = 16

	intentsAt  = maxSlots * slotSize
	maxIntents = 32
)

const (
	slotTruncate = 1 << iota
	slotTimes
	slotMode // put the mode back, and nothing else
	slotPunch
	slotSpecial // put the mode back: the change takes suid and sgid away
	slotLogged  // the slot is durable before the change is made
)

// maxWrite is the most plaintext that one change of a file carries, in bytes;
// it is also the largest write request that the kernel sends.
const maxWrite = 1 << 20

// redoFile is this mount's file of slots: first those of changes, then those of
// intents, which are a header alone. Slots are made when they are first needed,
// so a volume on a full disk still mounts and lets files be removed.
type redoFile struct {
	backing Backing
	fd      int
	session crypto.ID

	// lastRoom makes the first slot of a set, in space that is kept for it; nil if
	// there is none.
	lastRoom func(grow func() error) error

	mu      sync.Mutex
	key     *crypto.Key
	changes slotSet
	intents slotSet
}

// slotSet is slots of one size, from off on in the file. It is guarded by the
// file's mu.
type slotSet struct {
	off   int64
	size  int
	most  int  // slots
	last  bool // the last room was asked for
	all   []*slot
	held  int // by nobody who will give them back soon
	free  []*slot
	ready *sync.Cond
}

// slot is one change or intent under way. It belongs to one goroutine from draw
// to drop.
type slot struct {
	set *slotSet
	mem []byte      // header and payload
	key *crypto.Key // of the header's HMAC; the file's
	// late: it is no longer its owner's, but of a change that is made later.
	late bool
}

// segment is a part of a change: payload bytes and where they go.
type segment struct {
	cipherOff int64
	from, len int // in the payload
}

func newRedoFile(backing Backing, fd int, session crypto.ID, key *crypto.Key) *redoFile {
	r := &redoFile{backing: backing, fd: fd, session: session, key: key}
	r.changes = slotSet{size: slotSize, most: maxSlots, ready: sync.NewCond(&r.mu)}
	r.intents = slotSet{off: intentsAt, size: slotHeader, most: maxIntents, ready: sync.NewCond(&r.mu)}
	return r
}

// draw returns a free slot of a change, waiting for one if all are in use.
func (r *redoFile) draw() (*slot, error) { return r.drawFrom(&r.changes) }

func (r *redoFile) drawFrom(set *slotSet) (*slot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if n := len(set.free); n > 0 {
			s := set.free[n-1]
			set.free = set.free[:n-1]
			return s, nil
		}
		if len(set.all) < set.most {
			s, err := r.grow(set)
			if isFull(err) && len(set.all) == set.held && !set.last && r.lastRoom != nil {
				set.last = true
				_ = r.lastRoom(func() error { s, err = r.grow(set); return err })
			}
			if err == nil {
				return s, nil
			}
			if len(set.all) == set.held {
				return nil, err
			}
		}
		set.ready.Wait()
	}
}

// grow makes another slot. Its space is allocated first: touching a page that
// the store has no room for would kill the process. The caller holds mu.
func (r *redoFile) grow(set *slotSet) (*slot, error) {
	if r.fd < 0 { // nobody is to find it
		mem, err := unix.Mmap(-1, 0, set.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil, fmt.Errorf("map redo slot: %w", err)
		}
		s := &slot{set: set, mem: mem, key: r.key}
		set.all = append(set.all, s)
		return s, nil
	}
	off := set.off + int64(len(set.all))*int64(set.size)
	if err := allocate(r.backing, r.fd, off, set.size); err != nil {
		return nil, fmt.Errorf("allocate redo slot: %w", err)
	}
	mem, err := unix.Mmap(r.fd, off, set.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map redo slot: %w", err)
	}
	s := &slot{set: set, mem: mem, key: r.key}
	set.all = append(set.all, s)
	return s, nil
}

// drop disarms the slot and gives it back, unless its change is made later.
func (r *redoFile) drop(s *slot) {
	if s.late {
		return
	}
	s.disarm()
	r.mu.Lock()
	s.key = r.key // it may have been away while the volume was locked
	s.set.free = append(s.set.free, s)
	r.mu.Unlock()
	s.set.ready.Signal()
}

// hold says that a slot stays armed when its owner drops it, or no longer.
func (r *redoFile) hold(s *slot, late bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.late = late; late {
		s.set.held++
	} else {
		s.set.held--
	}
}

// wipe overwrites the key. No slot is in use.
func (r *redoFile) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key.Wipe()
}

// rekey takes the key over after wipe.
func (r *redoFile) rekey(key *crypto.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key = key
	for _, set := range []*slotSet{&r.changes, &r.intents} {
		for _, s := range set.free {
			s.key = key
		}
	}
}

// close unmaps the slots, of which none is in use; the pages stay in the file, armed
// those of late changes.
func (r *redoFile) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, set := range []*slotSet{&r.changes, &r.intents} {
		for _, s := range set.all {
			_ = unix.Munmap(s.mem)
		}
		set.all, set.free = nil, nil
	}
	r.key.Wipe()
	if r.fd >= 0 {
		r.backing.Close(r.fd)
	}
}

func (s *slot) payload() []byte { return s.mem[slotHeader:] }

// change says what a slot will do to a file beside its segments.
type change struct {
	file     crypto.ID
	ino      uint64
	path     string // below BACKING; "" if unknown
	flags    uint32
	size     int64 // slotTruncate: backing size
	mode     uint32
	atime    unix.StatxTimestamp
	mtime    unix.StatxTimestamp
	punch    struct{ cipherOff, len int64 } // slotPunch: becomes zeros
	sum      [sha256.Size]byte              // slotLogged: of the segments' payload, as read back
	segments []segment
}

// arm publishes the change. From here on the next mount makes it, whatever
// happens to this process.
func (s *slot) arm(session crypto.ID, c *change) {
	h := s.mem[:slotHeader]
	if len(c.path) > slotMACAt-slotPathAt {
		c.path = "" // found by a search instead
	}
	copy(h[24:], c.file[:])
	binary.LittleEndian.PutUint64(h[40:], c.ino)
	binary.LittleEndian.PutUint32(h[48:], c.flags)
	binary.LittleEndian.PutUint32(h[52:], uint32(len(c.segments)))
	binary.LittleEndian.PutUint64(h[56:], uint64(c.size))
	binary.LittleEndian.PutUint32(h[64:], c.mode)
	putTime(h[72:], c.mtime)
	putTime(h[88:], c.atime)
	for i, seg := range c.segments {
		b := h[104+16*i:]
		binary.LittleEndian.PutUint64(b, uint64(seg.cipherOff))
		binary.LittleEndian.PutUint32(b[8:], uint32(seg.from))
		binary.LittleEndian.PutUint32(b[12:], uint32(seg.len))
	}
	binary.LittleEndian.PutUint64(h[152:], uint64(c.punch.cipherOff))
	binary.LittleEndian.PutUint64(h[160:], uint64(c.punch.len))
	digest := [sha256.Size]byte{}
	if c.flags&slotLogged != 0 {
		digest = c.digest(s.payload())
	}
	copy(h[slotDigestAt:slotPathAt], digest[:])
	s.publish(session, c.path)
}

// publish adds session and text to a header that is filled in otherwise, seals
// it and arms the slot.
func (s *slot) publish(session crypto.ID, text string) {
	h := s.mem[:slotHeader]
	binary.LittleEndian.PutUint32(h[4:], uint32(len(text)))
	copy(h[8:], session[:])
	copy(h[slotPathAt:], text)
	mac := s.key.MAC(h[4 : slotPathAt+len(text)])
	copy(h[slotMACAt:], mac[:])
	atomic.StoreUint32(s.state(), slotArmed)
}

func (s *slot) disarm() {
	if !s.late {
		atomic.StoreUint32(s.state(), 0)
	}
}

// state is the slot's first word, aligned because slots start on pages.
func (s *slot) state() *uint32 { return (*uint32)(unsafe.Pointer(&s.mem[0])) }

func putTime(b []byte, t unix.StatxTimestamp) {
	binary.LittleEndian.PutUint64(b, uint64(t.Sec))
	binary.LittleEndian.PutUint64(b[8:], uint64(t.Nsec))
}

func getTime(b []byte) unix.Timespec {
	return unix.Timespec{
		Sec:  int64(binary.LittleEndian.Uint64(b)),
		Nsec: int64(binary.LittleEndian.Uint64(b[8:]) % 1e9),
	}
}
