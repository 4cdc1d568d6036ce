package volume

import (
	"errors"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// walk goes through the files of a volume in the order in which a program may
// read them: that of tar, find and grep -r (the entries of a directory as it
// lists them, a subdirectory's in its place, and after the last of a directory
// on with its parent), or that of shells, for the files of one directory: by
// name. It reads the first bytes of files, and decides nothing but which key to
// ask for.
type walk struct {
	vol    *Volume
	top    *Node // the directory of the outermost frame
	frames []walkFrame
	byName bool // only what is in sorted, left to come
	sorted []dirent
}

// walkFrame is a directory that the walk is in.
type walkFrame struct {
	fd   int
	ino  uint64
	buf  []byte
	rest []byte
}

// walkFile is a file with content.
type walkFile struct {
	id  crypto.ID // as its header says: not authenticated
	ino uint64
	dir uint64 // inode of its directory
}

const (
	walkDepth = 64      // directories open at once
	walkSteps = 4096    // entries looked at, at most, to find one file
	walkBuf   = 8 << 10 // bytes of a listing
)

var errWalkFar = errors.New("too far")

// walkFrom begins a walk after the entry of a file. A file far behind the start
// of its directory is errWalkFar: programs begin at the start.
func (v *Volume) walkFrom(n *Node) (*walk, error) {
	w := &walk{vol: v}
	steps := walkSteps
	if err := w.after(n, &steps); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// walkByName is a walk by name through the rest of a file's directory, which
// must not be large.
func (v *Volume) walkByName(n *Node) (_ *walk, err error) {
	p, ok := n.at()
	if !ok {
		return nil, io.EOF
	}
	l, err := p.parent.List()
	if err != nil {
		return nil, err
	}
	w := &walk{vol: v, top: p.parent, byName: true, frames: []walkFrame{{fd: l.fd, ino: p.parent.key.ino}}}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	names := make(map[string]string) // plain by backing
	for steps := walkSteps; ; steps-- {
		e, err := nextDirent(v.backing, l.fd, l.buf, &l.rest)
		if err == io.EOF {
			break
		}
		if err != nil || steps == 0 || l.broken {
			return nil, errWalkFar
		}
		if e.kind != unix.S_IFREG || p.parent.isOwn(e.name) {
			continue
		}
		plain, err := v.decode(l.id, l.fd, e.name)
		if err == nil && plain > p.name {
			names[e.name] = plain
			w.sorted = append(w.sorted, e)
		}
	}
	slices.SortFunc(w.sorted, func(a, b dirent) int { return strings.Compare(names[a.name], names[b.name]) })
	return w, nil
}

// after opens the directory of n and goes behind its entry.
func (w *walk) after(n *Node, steps *int) error {
	p, ok := n.at()
	if !ok {
		return io.EOF
	}
	d, err := p.parent.use()
	if err != nil {
		return err
	}
	w.top = p.parent
	err = w.enter(d.fd, ".", p.parent.key.ino)
	d.release()
	for err == nil {
		var e dirent
		if e, err = w.entry(steps); err == nil && e.ino == n.key.ino && e.name == p.backing {
			return nil
		}
	}
	return err
}

// next returns the next file with content, or io.EOF at the end of the tree.
func (w *walk) next() (walkFile, error) {
	steps := walkSteps
	for {
		e, err := w.entry(&steps)
		if err == io.EOF {
			if err = w.leave(&steps); err == nil {
				continue
			}
		}
		if err != nil {
			return walkFile{}, err
		}
		if w.top.isOwn(e.name) {
			continue
		}
		in := w.frames[len(w.frames)-1]
		switch e.kind {
		case unix.S_IFDIR:
			_ = w.enter(in.fd, e.name, e.ino) // or pass it over
		case unix.S_IFREG:
			if id, ok := w.header(in.fd, e.name); ok {
				return walkFile{id: id, ino: e.ino, dir: in.ino}, nil
			}
		}
	}
}

// entry returns the next entry of the innermost directory.
func (w *walk) entry(steps *int) (dirent, error) {
	if *steps--; *steps < 0 {
		return dirent{}, errWalkFar
	}
	if len(w.frames) == 0 || w.byName && len(w.sorted) == 0 {
		return dirent{}, io.EOF
	}
	if w.byName {
		e := w.sorted[0]
		w.sorted = w.sorted[1:]
		return e, nil
	}
	f := &w.frames[len(w.frames)-1]
	return nextDirent(w.vol.backing, f.fd, f.buf, &f.rest)
}

// enter goes into a directory.
func (w *walk) enter(dirfd int, name string, ino uint64) error {
	if len(w.frames) == walkDepth {
		return errWalkFar
	}
	fd, err := w.vol.backing.Openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	w.frames = append(w.frames, walkFrame{fd: fd, ino: ino, buf: make([]byte, walkBuf)})
	return nil
}

// leave goes back to the parent, behind the directory that it was in.
func (w *walk) leave(steps *int) error {
	if n := len(w.frames); n > 0 {
		w.vol.backing.Close(w.frames[n-1].fd)
		w.frames = w.frames[:n-1]
	}
	if len(w.frames) > 0 {
		return nil
	}
	if w.byName {
		return io.EOF
	}
	return w.after(w.top, steps)
}

// header reads the file ID of a data file that has content. What it says is not
// authenticated: the key that it leads to is, and at worst a call was in vain.
func (w *walk) header(dirfd int, name string) (crypto.ID, bool) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK
	k := w.vol.backing
	fd, err := k.Openat(dirfd, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM { // not ours
		fd, err = k.Openat(dirfd, name, flags, 0)
	}
	if err != nil {
		return crypto.ID{}, false
	}
	defer k.Close(fd)
	var b [crypto.HeaderSize + 1]byte
	if got, err := preadFull(k, fd, b[:], 0); err != nil || got < len(b) {
		return crypto.ID{}, false
	}
	id, err := crypto.HeaderFileID(b[:])
	return id, err == nil
}

func (w *walk) close() {
	for _, f := range w.frames {
		w.vol.backing.Close(f.fd)
	}
	w.frames = nil
}
