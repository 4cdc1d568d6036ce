package model

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// special are the mode bits that are known of every entry, also of one whose
// permissions a umask has made.
const special = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

func newRoot() *node { return &node{kind: unix.S_IFDIR, children: map[string]*node{}} }

// newEntry is what the process makes in directory n. A setgid directory passes
// its group on, and to directories the bit as well.
func (n *node) newEntry(kind uint32) *node {
	e := &node{kind: kind, nlink: 1, uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}
	if kind == unix.S_IFDIR {
		e.children = map[string]*node{}
	}
	if n.mode&unix.S_ISGID != 0 {
		e.gid = n.gid
		if kind == unix.S_IFDIR {
			e.mode = unix.S_ISGID
		}
	}
	return e
}

// seen is the mode that an entry should show, which shows got.
func (n *node) seen(got uint32) uint32 {
	if n.changed {
		return n.mode
	}
	return n.mode&special | got&^special
}

// attributes changes mode, owner or modification time.
func (w *walker) attributes(p string, n *node) {
	switch w.rng.IntN(3) {
	case 0:
		w.chmod(p, n)
	case 1:
		w.chown(p, n)
	default:
		if n.kind == unix.S_IFLNK {
			return
		}
		mtime := time.Unix(w.rng.Int64N(2_000_000_000), w.rng.Int64N(1_000_000_000))
		w.last = fmt.Sprintf("set the mtime of %q to %v", p, mtime)
		w.expect(w.fs.SetMtime(p, mtime), 0)
		n.mtime = mtime
	}
}

func (w *walker) chmod(p string, n *node) {
	if n.kind == unix.S_IFLNK {
		return
	}
	modes := []uint32{0o600, 0o644, 0o755, 0o700, 0o666}
	switch {
	case os.Geteuid() != 0: // whose writes take suid and sgid away again
	case n.kind == unix.S_IFDIR:
		modes = append(modes, 0o2755, 0o2700, 0o1777, 0o3777)
	case n.kind == unix.S_IFREG:
		modes = append(modes, 0o4755, 0o2755, 0o6711, 0o2644)
	}
	mode := modes[w.rng.IntN(len(modes))]
	if n.kind == unix.S_IFDIR {
		mode |= 0o700
	}
	w.last = fmt.Sprintf("chmod %q to %o", p, mode)
	w.expect(w.fs.Chmod(p, mode), 0)
	n.mode, n.changed = mode, true
}

// chown gives an entry away, which root may, or to its owner once more. A
// program loses suid by that, and sgid where it means a group to run as.
func (w *walker) chown(p string, n *node) {
	uid, gid := n.uid, n.gid
	if os.Geteuid() == 0 {
		ids := []uint32{0, 1000, 4711, 1 << 31}
		uid, gid = ids[w.rng.IntN(len(ids))], ids[w.rng.IntN(len(ids))]
	}
	w.last = fmt.Sprintf("chown %q to %d:%d", p, uid, gid)
	w.expect(w.fs.Chown(p, uid, gid), 0)
	n.uid, n.gid = uid, gid
	if n.kind == unix.S_IFREG {
		n.mode &^= unix.S_ISUID
		if n.mode&unix.S_IXGRP != 0 {
			n.mode &^= unix.S_ISGID
		}
	}
}
