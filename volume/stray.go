package volume

import (
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// A stray is a name of a data file that is not the file's: a hard link that
// somebody planted, or where the file was moved to behind our back. It gets a Node
// of its own, which can be listed, stat'ed and removed, and nothing else; so the
// file stays what it is under the name that is right.

// isStray tells whether the data file that st describes may not be used by the
// name p. It looks only where there may be other names; where there are none,
// opening the file checks its binding. What cannot be told is not strange: then,
// too, opening the file does.
func (v *Volume) isStray(d *descriptor, p place, st *unix.Statx_t, broken bool) bool {
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFREG || !broken && v.accepting() {
		return false
	}
	n := v.nodes.find(keyOf(st))
	others := false
	if n != nil {
		for _, q := range n.known() {
			if q.parent == p.parent && q.backing == p.backing {
				return false
			}
			others = true
		}
	}
	switch {
	case st.Nlink < 2 && !others:
		return false
	case broken: // or what cannot be read by this name could not by the others
		return true
	}
	rec, err := v.recordAt(n, d, p, st)
	if err != nil || rec.Linked() {
		return false
	}
	bound, err := v.isBound(&rec, p)
	return err == nil && !bound
}

// strayNode makes the node of a stray. The table does not have it.
func (v *Volume) strayNode(p place, st *unix.Statx_t) *Node {
	n := &Node{vol: v, key: keyOf(st), mode: unix.S_IFREG, stray: true}
	n.undecipherable.Store(true)
	n.addPlace(p)
	return n
}

// recordAt returns the record of the data file at p, of node n if that is not nil.
func (v *Volume) recordAt(n *Node, d *descriptor, p place, st *unix.Statx_t) (crypto.Record, error) {
	if n != nil && v.shared == nil {
		n.mu.Lock()
		f := n.file
		if f != nil {
			n.desc.take()
		}
		n.mu.Unlock()
		if f != nil {
			defer f.release()
			f.content.RLock()
			defer f.content.RUnlock()
			return f.rec, nil
		}
	}
	fd, err := v.backing.Openat(d.fd, p.backing, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return crypto.Record{}, err
	}
	defer v.backing.Close(fd)
	var now unix.Statx_t
	if err := v.backing.Statx(fd, "", &now); err != nil {
		return crypto.Record{}, err
	}
	if keyOf(&now) != keyOf(st) {
		return crypto.Record{}, unix.ENOENT
	}
	var header [crypto.HeaderSize]byte
	if _, err := preadFull(v.backing, fd, header[:], 0); err != nil {
		return crypto.Record{}, err
	}
	id, err := crypto.HeaderFileID(header[:])
	if err != nil {
		return crypto.Record{}, err
	}
	records := crypto.NewRecordCipher(v.vk, v.id, id)
	defer records.Wipe()
	rec, err := records.Open(header[:])
	if err != nil {
		return crypto.Record{}, fmt.Errorf("record: %w", err)
	}
	return rec, nil
}

// isBound tells whether a file's record names p.
func (v *Volume) isBound(rec *crypto.Record, p place) (bool, error) {
	dir, err := p.parent.dirID()
	if err != nil {
		return false, err
	}
	b := v.binder.Binding(dir, p.name)
	return b == rec.BindingA || b == rec.BindingB, nil
}

// verifyAt says that a directory was looked up at p: its record is verified anew
// if it was for another place, where somebody has moved it from.
func (n *Node) verifyAt(p place) {
	if n.mode != unix.S_IFDIR || n == n.vol.root {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dir != nil && (n.dir.at.parent != p.parent || n.dir.at.backing != p.backing) {
		n.dir = nil
	}
}
