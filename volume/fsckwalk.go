package volume

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// fsckEntry is an entry of the tree that is being checked. The root has no dir.
type fsckEntry struct {
	dir     *Node
	plain   string // as listings show it
	backing string
	broken  bool // the name does not decrypt
	node    *Node
	nlink   uint32
	size    int64 // of the backing file

	aside     bool // it was set aside
	told      bool // what it is was reported
	sound     bool // a data file: its content and record are
	keyless   bool // a data file that nobody can read, for want of its sidecar
	wasBroken bool // until it was given another name
}

func (e *fsckEntry) path() string        { return e.join(e.plain, (*Node).Path) }
func (e *fsckEntry) backingPath() string { return e.join(e.backing, (*Node).BackingPath) }

// join is the path of the entry, also where its node has other names.
func (e *fsckEntry) join(name string, path func(*Node) string) string {
	if e.dir == nil || e.dir == e.node.vol.root {
		return name
	}
	return path(e.dir) + "/" + name
}

func notFound(path string, err error) error {
	return fmt.Errorf("find %q in the volume: %w", path, err)
}

// fsckEntry finds an entry by the name that a listing shows.
func (n *Node) fsckEntry(name string) (*fsckEntry, error) {
	d, err := n.use()
	if err != nil {
		return nil, err
	}
	defer d.release()
	e, broken, err := n.resolve(d, name)
	if err != nil {
		return nil, err
	}
	return n.newFsckEntry(d, name, e.backing, broken)
}

// newFsckEntry looks at a backing entry of directory n, which is open as d.
func (n *Node) newFsckEntry(d *descriptor, plain, backing string, broken bool) (*fsckEntry, error) {
	e := &fsckEntry{dir: n, plain: plain, backing: backing, broken: broken}
	var st unix.Statx_t
	if err := n.vol.backing.Statx(d.fd, backing, &st); err != nil {
		return nil, err
	}
	e.nlink, e.size = st.Nlink, int64(st.Size)
	e.node = n.vol.intern(place{parent: n, name: plain, backing: backing}, &st)
	if broken {
		e.node.undecipherable.Store(true)
	}
	return e, nil
}

// fsckWalk goes through the tree.
type fsckWalk struct {
	*fsck
	group *errgroup.Group // looks at files
}

// entry looks at an entry and all that is below it. Errors end the check.
func (w *fsckWalk) entry(ctx context.Context, e *fsckEntry) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if e.broken {
		w.mu.Lock()
		w.nameless = append(w.nameless, e)
		w.mu.Unlock()
		if w.live {
			return nil // what is below it cannot be read, after a power cut or not
		}
	}
	switch e.node.mode {
	case unix.S_IFDIR:
		return w.directory(ctx, e)
	case unix.S_IFREG:
		w.group.Go(func() error { return w.file(ctx, e) })
	case unix.S_IFLNK:
		w.tally(&w.report.Symlinks)
		w.symlink(e)
	default:
		w.tally(&w.report.Others)
	}
	return nil
}

func (c *fsck) tally(n *int) {
	c.mu.Lock()
	*n++
	c.mu.Unlock()
}

// directory looks at a directory's record and then at its entries.
func (w *fsckWalk) directory(ctx context.Context, e *fsckEntry) error {
	w.tally(&w.report.Directories)
	if !w.record(e) && w.live {
		return nil // likewise
	}
	d, err := e.node.use()
	if err != nil {
		return w.unreadable(e, err)
	}
	entries, err := e.node.listInside(d)
	d.release()
	if err != nil {
		return w.unreadable(e, err)
	}
	w.xattrs(e)
	id, idErr := e.node.dirID()
	if idErr != nil {
		w.lookAway() // what its entries use cannot be told from their names
	}
	inside := fsckInside{names: make(map[string]bool)}
	for _, entry := range entries {
		if err := w.inside(ctx, e, entry.name, id, idErr == nil, &inside); err != nil {
			return err
		}
	}
	return w.leftovers(ctx, e, &inside)
}

// fsckInside is what a directory holds beside its entries.
type fsckInside struct {
	names     map[string]bool // backing names of entries
	long      []string        // files of long names
	temporary []string
}

// inside looks at one backing entry of directory parent, which has that ID if
// known says so.
func (w *fsckWalk) inside(ctx context.Context, parent *fsckEntry, name string, id crypto.ID, known bool, inside *fsckInside) error {
	n := parent.node
	switch {
	case name == recordName, n == w.vol.root && name == metaDir:
		return nil
	case isTemporary(name):
		inside.temporary = append(inside.temporary, name)
		return nil
	case isLongNameFile(name):
		inside.long = append(inside.long, name)
		return nil
	}
	inside.names[name] = true
	e, err := w.look(n, name, id, known)
	if w.gone(err) {
		return nil
	}
	if err != nil {
		e = &fsckEntry{dir: n, node: n, plain: name, backing: name}
		return w.unreadable(e, err)
	}
	err = w.entry(ctx, e)
	if e.node.IsDir() && !w.live {
		e.node.Forget()
	}
	return err
}

// look finds out what a backing entry is.
func (w *fsckWalk) look(n *Node, name string, id crypto.ID, known bool) (*fsckEntry, error) {
	d, err := n.use()
	if err != nil {
		return nil, err
	}
	defer d.release()
	plain, broken := brokenName(name), true
	if known {
		// Where the owner may not search it, the file of a long name is out of reach.
		_ = w.vol.searching(n, d, func() error {
			p, err := w.vol.decode(id, d.fd, name)
			if err == nil {
				plain, broken = p, false
			}
			return err
		})
	}
	var e *fsckEntry
	err = w.vol.searching(n, d, func() (err error) {
		e, err = n.newFsckEntry(d, plain, name, broken)
		return err
	})
	return e, err
}

// searching runs call, which looks at entries of a directory, also where its
// owner may not.
func (v *Volume) searching(n *Node, d *descriptor, call func() error) error {
	err := call()
	if !errors.Is(err, unix.EACCES) {
		return err
	}
	if v.lifted(d.fd, 0o700, n.BackingPath(), func() error { err = call(); return nil }) != nil {
		return unix.EACCES
	}
	return err
}

// unreadable notes that the backing store does not give something. It ends the
// check where that is so for everything.
func (c *fsck) unreadable(e *fsckEntry, err error) error {
	if c.gone(err) {
		return nil
	}
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, ErrLocked) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("check %q: %w", e.path(), err)
	}
	c.lookAway()
	c.find(FindingUnreadable, e, "%v", err)
	return nil
}

// symlink looks at a symbolic link's target.
func (c *fsck) symlink(e *fsckEntry) {
	content, err := e.node.readBackingLink()
	if c.gone(err) {
		return
	}
	if err == nil && len(content) == linkIDLen {
		c.mu.Lock()
		c.links[content] = true
		c.mu.Unlock()
	}
	var raw []byte
	if err == nil {
		raw, err = c.vol.linkContent(content)
	}
	if err == nil {
		_, err = c.vol.symlinks.Open(raw)
	}
	if err == nil || e.broken {
		return // an entry without a name is one finding
	}
	f := c.find(FindingSymlink, e, "its target cannot be read: %v", err)
	if c.options.Repair {
		c.setAside(f, e)
	}
}

// xattrs looks at extended attributes. They are left as they are: a damaged one
// hides nothing but itself.
func (c *fsck) xattrs(e *fsckEntry) {
	n := e.node
	var stored []string
	if err := n.onInode(func(fd int) (err error) { stored, err = c.vol.storedXattrs(fd); return err }); err != nil {
		return // a store without them
	}
	for _, s := range stored {
		enc, ours := n.encryptedXattr(s)
		if IsACL(s) || !ours {
			continue
		}
		name, err := c.vol.names.DecryptXattrName(enc)
		if err == nil {
			_, err = n.Getxattr(name)
		} else {
			name = s
		}
		if err != nil && !c.gone(err) && !errors.Is(err, unix.ENODATA) {
			c.find(FindingXattr, e, "attribute %q: %v", name, cause(err)).left("it cannot be read, and is left as it is")
		}
	}
}

// cause leaves out of an error what a finding says anyway.
func cause(err error) error {
	var bad *IntegrityError
	if errors.As(err, &bad) {
		return bad.Err
	}
	return err
}

// count adds up the work that there is below an entry.
func (c *fsck) count(ctx context.Context, e *fsckEntry) {
	if ctx.Err() != nil {
		return
	}
	switch e.node.mode {
	case unix.S_IFREG:
		c.total += crypto.PlainSizeFloor(e.size) + fileWork
	case unix.S_IFDIR:
		if d, err := e.node.use(); err == nil {
			c.countInside(ctx, d.fd, e.node == c.vol.root)
			d.release()
		}
	}
}

func (c *fsck) countInside(ctx context.Context, dirfd int, root bool) {
	entries, err := c.vol.listBacking(dirfd)
	if err != nil || ctx.Err() != nil {
		return
	}
	for _, e := range entries {
		switch {
		case root && e.name == metaDir, strings.HasPrefix(e.name, recordName), isLongNameFile(e.name):
		case e.kind == unix.S_IFREG:
			var st unix.Statx_t
			if c.vol.backing.Statx(dirfd, e.name, &st) == nil {
				c.total += crypto.PlainSizeFloor(int64(st.Size)) + fileWork
			}
		case e.kind == unix.S_IFDIR:
			if fd, err := c.vol.backing.Openat(dirfd, e.name, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
				c.countInside(ctx, fd, false)
				c.vol.backing.Close(fd)
			}
		}
	}
}
