package volume

import (
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// The reserve is allocated space that a mount gives up when the backing disk is
// full: a session, its slots and host state take some, and so does a replay, for
// what the killed mount was about to write. So a volume on a full disk can still
// be mounted for writing, and files be cut and removed. It is taken again when the
// mount is ready, as far as there is room, and else when it ends.
//
// A replay that is short of room makes one change after the other and gives each
// slot's space back: it never needs more than one slot holds, 262 pages. The mount
// that follows may take as much for its own first slot. The rest of the 3 MiB is
// for metadata: blocks of directories and extents, the new mount's intents. The
// reserve is more than one file because inodes run out, too, and so that what is
// left of it is kept on.
const (
	reserveFiles = 4
	reserveSize  = 768 << 10 // bytes of each
)

// reserveNames are those of the files, in .kmsfs.
func reserveNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range reserveFiles {
			if !yield(fmt.Sprintf("reserve.%d", i)) {
				return
			}
		}
	}
}

// isReserve tells whether an entry of .kmsfs may be of the reserve.
func isReserve(e dirent) bool {
	for name := range reserveNames() {
		if e.name == name {
			return e.kind == unix.S_IFREG || e.kind == 0
		}
	}
	return false
}

// isFull tells whether a store refused something for want of space, blocks or
// inodes.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// withRoom does a step of beginning or ending to write, and does it again with the
// reserve given up where the store has no room for it.
func (v *Volume) withRoom(step func() error) error {
	err := step()
	if isFull(err) && v.giveReserve() {
		err = step()
	}
	return err
}

// giveReserve gives the reserve up, and tells whether there may be more room now:
// also without a reserve, replay is sparing with space from now on.
func (v *Volume) giveReserve() bool {
	if v.tight {
		return false
	}
	if v.session == nil { // then it may be another mount's
		if live, err := liveSessions(v.backing, v.rootDesc.fd); err != nil || len(live) > 0 {
			return false
		}
	}
	v.tight, v.unreserved = true, true
	for name := range reserveNames() {
		_ = v.backing.Unlinkat(v.meta, name, 0)
	}
	_ = v.backing.Syncfs(v.meta) // some stores give space back only then
	v.log.Info("there is no room for what a mount for writing needs: the space that is kept for this is used")
	return true
}

// takeReserve makes the reserve whole as far as there is room.
func (v *Volume) takeReserve() {
	v.tight, v.unreserved = false, false
	for name := range reserveNames() {
		if err := v.takeReserveFile(name); err != nil {
			v.unreserved = true
			if !v.saidUnreserved {
				v.log.Warn("there is no room to keep space for mounting when the backing disk is full", "error", err)
			}
			v.saidUnreserved = true
			return
		}
	}
}

func (v *Volume) takeReserveFile(name string) error {
	k := v.backing
	var st unix.Statx_t
	err := k.Statx(v.meta, name, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Blocks*512 >= reserveSize {
		return nil
	}
	if err == nil { // a tool that copies holes as holes brought it here, or a mount was killed just then
		err = k.Unlinkat(v.meta, name, 0)
	}
	if err != nil && err != unix.ENOENT {
		return err
	}
	fd, err := k.Openat(v.meta, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer k.Close(fd)
	if err = keepOwner(k, v.meta, "", fd); err == nil {
		err = allocate(k, fd, 0, reserveSize)
	}
	if err != nil {
		_ = k.Unlinkat(v.meta, name, 0)
	}
	return err
}

// allocate gives a range of a file that has nothing there yet its space, in zeros.
func allocate(k Backing, fd int, off int64, size int) error {
	err := k.Fallocate(fd, 0, off, int64(size))
	if err == unix.EOPNOTSUPP {
		_, err = pwriteFull(k, fd, make([]byte, size), off)
	}
	return err
}

// lastRoom is what a mount whose first slot the store has no room for does to make
// it: for cutting a file short, say. The caller holds the redo file's mu.
func (v *Volume) lastRoom(grow func() error) error {
	if !v.giveReserve() {
		return unix.ENOSPC
	}
	defer v.takeReserve()
	return grow()
}

// spareSlots gives back what free slots of a killed session hold.
func (v *Volume) spareSlots(slots int) error {
	for i := range int64(maxSlots) {
		var state [4]byte
		n, err := preadFull(v.backing, slots, state[:], i*slotSize)
		if err != nil {
			return fmt.Errorf("read redo slot %d: %w", i, err)
		}
		if n == len(state) && state == ([4]byte{}) {
			v.punchSlot(slots, i*slotSize)
		}
	}
	return nil
}

// spendSlot disarms the slot at off, whose change is made and durable, and gives
// back what it holds.
func (v *Volume) spendSlot(slots int, off int64) error {
	if _, err := pwriteFull(v.backing, slots, make([]byte, 4), off); err != nil {
		return err
	}
	v.punchSlot(slots, off)
	return nil
}

// punchSlot makes a hole of a slot's payload, where the store can.
func (v *Volume) punchSlot(slots int, off int64) {
	_ = v.backing.Fallocate(slots, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off+slotHeader, slotSize-slotHeader)
}
