package volume

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Attr is what stat shows of an inode: the backing file's attributes, with the
// plaintext's size.
type Attr struct {
	Ino, Gen             uint64
	Size                 uint64 // bytes of plaintext
	Blocks               uint64 // of 512 bytes, as the backing file takes up
	Blksize              uint32
	Mode                 uint32 // type and permissions
	Nlink, UID, GID      uint32
	RdevMajor, RdevMinor uint32
	Atime, Mtime, Ctime  unix.StatxTimestamp
	Btime                unix.StatxTimestamp // zero where the store has none
}

// The C library lists a directory in calls of as many bytes as its block size says,
// 32 KiB at least, and newer kernels ask for as much at a time.
const (
	largeDir        = 64 << 10 // bytes on the backing store, 1,000 to 3,000 entries
	largeDirBlksize = 128 << 10
)

// attr turns the backing file's status into the node's.
func (n *Node) attr(st *unix.Statx_t) (Attr, error) {
	a := Attr{
		Ino: n.key.ino, Gen: n.key.gen,
		Size: st.Size, Blocks: st.Blocks, Blksize: crypto.BlockSize,
		Mode: uint32(st.Mode), Nlink: st.Nlink, UID: st.Uid, GID: st.Gid,
		RdevMajor: st.Rdev_major, RdevMinor: st.Rdev_minor,
		Atime: st.Atime, Mtime: st.Mtime, Ctime: st.Ctime, Btime: st.Btime,
	}
	switch n.mode {
	case unix.S_IFREG:
		a.Size = uint64(crypto.PlainSizeFloor(int64(st.Size)))
		if isStrange(int64(st.Size)) && !n.vol.checking {
			if size, err := n.sizeNow(); err == nil {
				a.Size = size
			}
		}
		if late := n.vol.late.of(n.key.ino); late != nil {
			a.Size = late.next.Size
		}
	case unix.S_IFDIR:
		if a.Size > largeDir {
			a.Blksize = largeDirBlksize
		}
		if n == n.vol.root && a.Nlink > 2 {
			a.Nlink-- // .kmsfs
		}
	case unix.S_IFLNK:
		size, err := n.linkSize(int(st.Size))
		if err != nil {
			// Reading the link will say what is wrong with it.
			size = 0
		}
		a.Size = uint64(size)
	}
	return a, nil
}

// Attr returns the node's attributes.
func (n *Node) Attr() (Attr, error) {
	if n != n.vol.root { // a mount without keys still has a root
		if err := n.vol.begin(ordinary); err != nil {
			return Attr{}, err
		}
		defer n.vol.end()
	}
	return n.attrNow()
}

// attrNow is Attr for calls that were let in.
func (n *Node) attrNow() (Attr, error) {
	var st unix.Statx_t
	if err := n.stat(&st); err != nil {
		return Attr{}, err
	}
	return n.attr(&st)
}

// stat reads the backing inode's status.
func (n *Node) stat(st *unix.Statx_t) error {
	return n.onBacking(func(dirfd int, name string) error {
		if err := n.vol.backing.Statx(dirfd, name, st); err != nil {
			return err
		}
		if keyOf(st) != n.key {
			return unix.ENOENT
		}
		return nil
	})
}

// onBacking calls with an open descriptor of the inode and the name "", or with
// its directory and its name in it.
func (n *Node) onBacking(call func(dirfd int, name string) error) error {
	n.mu.Lock()
	if d := n.desc; d != nil {
		d.take()
		n.mu.Unlock()
		defer d.release()
		return call(d.fd, "")
	}
	n.mu.Unlock()
	var err error = unix.ENOENT
	for _, p := range n.known() {
		var d *descriptor
		if d, err = p.parent.use(); err != nil {
			continue
		}
		err = call(d.fd, p.backing)
		d.release()
		if err != unix.ENOENT {
			break
		}
	}
	return err
}

// Change is a set of attributes to change; nil leaves one as it is.
type Change struct {
	Size         *int64
	Mode         *uint32 // permission bits
	UID, GID     *uint32
	Atime, Mtime *time.Time
	AtimeNow     bool
	MtimeNow     bool
	// DropPrivileges clears suid, and sgid of what the group may execute: a
	// write or truncation by somebody without the right to keep them. Where
	// InGroup is set and says that he is not in the file's group, sgid goes in
	// any case.
	DropPrivileges bool
	InGroup        func(gid uint32) bool
}

// SetAttr changes attributes and returns the new ones: size first, then owner,
// mode and times, so that none undoes another.
func (n *Node) SetAttr(ctx context.Context, c Change) (Attr, error) {
	// Times alone need no key: the kernel hands those over that it kept.
	if c.Size != nil || c.Mode != nil || c.UID != nil || c.GID != nil || c.DropPrivileges {
		if err := n.vol.begin(ordinary); err != nil {
			return Attr{}, err
		}
		defer n.vol.end()
	}
	if c.Size != nil {
		if err := n.truncate(ctx, *c.Size); err != nil {
			return Attr{}, err
		}
	}
	if c.Size != nil || c.UID != nil || c.GID != nil || c.DropPrivileges {
		if err := n.dropCapability(); err != nil {
			return Attr{}, err
		}
	}
	// A writer must not put an older time back.
	unlock, err := n.lockTimes()
	if err == nil {
		err = n.onBacking(func(dirfd int, name string) error { return n.setBacking(dirfd, name, &c) })
		unlock()
	}
	if err != nil {
		return Attr{}, err
	}
	return n.attrNow()
}

// lockTimes keeps the writers of a file that is open away from its times, and
// makes them look at those anew. The caller calls what it returns.
func (n *Node) lockTimes() (unlock func(), err error) {
	n.mu.Lock()
	f := n.file
	if f != nil {
		n.desc.take()
	}
	n.mu.Unlock()
	if f == nil {
		return func() {}, nil
	}
	if err := f.beginWrite(); err != nil {
		f.release()
		return nil, err
	}
	f.mtime = nil
	return func() {
		f.endWrite()
		f.release()
	}, nil
}

// setBacking changes what the backing inode keeps for us.
func (n *Node) setBacking(dirfd int, name string, c *Change) error {
	if n.vol.readOnly {
		return unix.EROFS
	}
	k := n.vol.backing
	if name != "" {
		// Nothing but our own inode is touched.
		var st unix.Statx_t
		if err := k.Statx(dirfd, name, &st); err != nil {
			return err
		}
		if keyOf(&st) != n.key {
			return unix.ENOENT
		}
	}
	if c.UID != nil || c.GID != nil {
		if err := k.Fchownat(dirfd, name, ownerID(c.UID), ownerID(c.GID)); err != nil {
			return err
		}
	}
	if c.DropPrivileges && c.Mode == nil {
		if err := n.dropPrivileges(dirfd, name, c.InGroup); err != nil {
			return err
		}
	}
	if c.Mode != nil {
		if err := k.Fchmodat(dirfd, name, *c.Mode&0o7777); err != nil {
			return err
		}
	}
	if c.Atime != nil || c.Mtime != nil || c.AtimeNow || c.MtimeNow {
		times := [2]unix.Timespec{timespec(c.Atime, c.AtimeNow), timespec(c.Mtime, c.MtimeNow)}
		return k.Utimensat(dirfd, name, &times)
	}
	return nil
}

func (n *Node) dropPrivileges(dirfd int, name string, inGroup func(gid uint32) bool) error {
	var st unix.Statx_t
	if err := n.vol.backing.Statx(dirfd, name, &st); err != nil {
		return err
	}
	mode := uint32(st.Mode) & 0o7777
	keep := mode &^ unix.S_ISUID
	if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || inGroup != nil && !inGroup(st.Gid)) {
		keep &^= unix.S_ISGID
	}
	if keep == mode || n.mode != unix.S_IFREG {
		return nil
	}
	return n.vol.backing.Fchmodat(dirfd, name, keep)
}

func ownerID(id *uint32) int {
	if id == nil {
		return -1
	}
	return int(*id)
}

func timespec(t *time.Time, now bool) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case t == nil:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}
