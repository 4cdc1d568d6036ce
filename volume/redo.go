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
//	48   4   flags (slotTruncate, slotTimes, slotMode, slotPunch)
//	52   4   number of segments
//	56   8   size to cut or extend the backing file to
//	64   4   mode to put back
//	72  16   modification time to put back (seconds, nanoseconds)
//	88  16   access time, likewise
//	104 48   three segments: cipherOff u64, payload offset u32, length u32
//	152 16   range to punch out (cipherOff u64, length u64)
//	168  …   path of the backing file below BACKING (may be empty)
//	4064 32  HMAC-SHA-256 (label redo) of bytes 4 to the end of the path
//
// The payload is not under the HMAC: blocks and records authenticate themselves.
const (
	slotHeader   = 4096
	slotMACAt    = slotHeader - 32
	slotPathAt   = 168
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
)

const (
	slotTruncate = 1 << iota
	slotTimes
	slotMode
	slotPunch
)

// maxWrite is the most plaintext that one change of a file carries, in bytes;
// it is also the largest write request that the kernel sends.
const maxWrite = 1 << 20

// redoFile is this mount's file of slots. Slots are made when they are first
// needed, so a volume on a full disk still mounts and lets files be removed.
type redoFile struct {
	fd      int
	session crypto.ID

	mu    sync.Mutex
	free  []*slot
	made  int
	ready *sync.Cond
	key   *crypto.Key
}

// slot is one change under way. It belongs to one goroutine from draw to drop.
type slot struct {
	mem []byte      // header and payload
	key *crypto.Key // of the header's HMAC; the file's
}

// segment is a part of a change: payload bytes and where they go.
type segment struct {
	cipherOff int64
	from, len int // in the payload
}

func newRedoFile(fd int, session crypto.ID, key *crypto.Key) *redoFile {
	r := &redoFile{fd: fd, session: session, key: key}
	r.ready = sync.NewCond(&r.mu)
	return r
}

// draw returns a free slot, waiting for one if all are in use.
func (r *redoFile) draw() (*slot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if n := len(r.free); n > 0 {
			s := r.free[n-1]
			r.free = r.free[:n-1]
			return s, nil
		}
		if r.made < maxSlots {
			s, err := r.grow()
			if err == nil {
				return s, nil
			}
			if r.made == 0 {
				return nil, err
			}
		}
		r.ready.Wait()
	}
}

// grow makes another slot. Its space is allocated first: touching a page that
// the store has no room for would kill the process. The caller holds mu.
func (r *redoFile) grow() (*slot, error) {
	off := int64(r.made) * slotSize
	if err := unix.Fallocate(r.fd, 0, off, slotSize); err == unix.EOPNOTSUPP {
		if err := writeZeros(r.fd, off, slotSize); err != nil {
			return nil, fmt.Errorf("allocate redo slot: %w", err)
		}
	} else if err != nil {
		return nil, fmt.Errorf("allocate redo slot: %w", err)
	}
	mem, err := unix.Mmap(r.fd, off, slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map redo slot: %w", err)
	}
	r.made++
	return &slot{mem: mem, key: r.key}, nil
}

func writeZeros(fd int, off int64, n int) error {
	zeros := make([]byte, 64<<10)
	for n > 0 {
		m, err := unix.Pwrite(fd, zeros[:min(n, len(zeros))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-m
	}
	return nil
}

// drop disarms the slot and gives it back.
func (r *redoFile) drop(s *slot) {
	s.disarm()
	r.mu.Lock()
	r.free = append(r.free, s)
	r.mu.Unlock()
	r.ready.Signal()
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
	for _, s := range r.free {
		s.key = key
	}
}

// close unmaps the slots that are not in use; the pages stay in the file.
func (r *redoFile) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.free {
		_ = unix.Munmap(s.mem)
	}
	r.free = nil
	r.key.Wipe()
	_ = unix.Close(r.fd)
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
	segments []segment
}

// arm publishes the change. From here on the next mount makes it, whatever
// happens to this process.
func (s *slot) arm(session crypto.ID, c *change) {
	h := s.mem[:slotHeader]
	if len(c.path) > slotMACAt-slotPathAt {
		c.path = "" // found by a search instead
	}
	binary.LittleEndian.PutUint32(h[4:], uint32(len(c.path)))
	copy(h[8:], session[:])
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
	copy(h[slotPathAt:], c.path)
	mac := s.sum(len(c.path))
	copy(h[slotMACAt:], mac[:])
	atomic.StoreUint32(s.state(), slotArmed)
}

// sum is the header's HMAC.
func (s *slot) sum(pathLen int) [sha256.Size]byte { return s.key.MAC(s.mem[4 : slotPathAt+pathLen]) }

func (s *slot) disarm() { atomic.StoreUint32(s.state(), 0) }

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
