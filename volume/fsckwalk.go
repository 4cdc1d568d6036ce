package volume

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

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
		// The walk goes on, and far from here nothing would be open that leads here.
		d, err := e.dir.use()
		if err != nil {
			return w.unreadable(e, err)
		}
		w.group.Go(func() error {
			defer d.release()
			return w.file(ctx, e)
		})
	case unix.S_IFLNK:
		w.tally(&w.report.Symlinks)
		w.xattrs(e) // before it is set aside
		return w.symlink(e)
	default:
		w.tally(&w.report.Others)
		w.xattrs(e)
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
	e.number = w.report.Directories
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
	if isStoreError(idErr) {
		return w.unreadable(e, idErr) // the names in it are not lost for that
	}
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
	e.astray = parent.astray || e.broken
	err = w.entry(ctx, e)
	if e.node.IsDir() {
		n.comeBack(e.node)
		if !w.live {
			e.node.Forget()
		}
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
		err := w.vol.searching(n, d, func() error {
			p, err := w.vol.decode(id, d.fd, name)
			if err == nil {
				plain, broken = p, false
			}
			return err
		})
		if isStoreError(err) {
			return nil, err // it may have a name
		}
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
	if e.node.IsDir() {
		c.hold(e, err)
	}
	c.find(FindingUnreadable, e, "%v", err)
	return nil
}
