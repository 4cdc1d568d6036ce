package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Directories of one ID are what somebody makes who copies one behind our back.
// Names, bindings and attributes hang on the ID, so a copy gets another one by
// moving what is in it, entry by entry as any rename does, into a new directory
// that then takes its place. The new one stands beside it under a name that says
// whose it is. So everything can be read wherever a repair ends, and the next one
// goes on. What was copied inside is settled before: files have IDs of their own
// by then, and directories are dealt with from the bottom up. While that is not
// done, the directory around it is left: moved to another one, what was begun
// inside would have another name, and nothing would go on with it.

// dirCopies are all directories of an ID but the one that is where it belongs,
// those that are inside of others first. Of several that seem to be where they
// belong, the first by path keeps the ID.
func (c *fsck) dirCopies() []*fsckEntry {
	var copies []*fsckEntry
	for id, same := range c.dirs {
		if len(same) < 2 {
			continue
		}
		for _, e := range same {
			// Where a repair has begun, it is finished.
			begun, err := e.isBegun()
			if err != nil {
				for _, e := range same {
					c.hold(e, err) // it may be another that is the copy
				}
			}
			e.astray = id != c.vol.rootID && (e.astray || begun)
		}
		slices.SortFunc(same, byPlace)
		for _, e := range same[1:] {
			e.original = same[0]
			copies = append(copies, e)
		}
	}
	slices.SortFunc(copies, func(a, b *fsckEntry) int { return b.number - a.number })
	return copies
}

// settleDirCopies reports directories that are copies, and gives them new IDs.
func (c *fsck) settleDirCopies(ctx context.Context, copies []*fsckEntry) error {
	bound := make(map[*fsckEntry]error)
	for _, e := range copies {
		if c.options.Repair && e.astray && !e.broken {
			// Whoever finishes what is interrupted in it will not know that it is a copy.
			bound[e] = e.rebind()
		}
	}
	for _, e := range copies {
		f := c.find(FindingDirCopy, e, "it is a copy of the directory %q, made behind kmsfs's back: files could be exchanged between the two unseen",
			e.original.path())
		switch {
		case !c.options.Repair:
		case e.broken:
			f.left("it has no name, and is left as it is")
		case c.held[e.node] != nil:
			f.mended(c.held[e.node], "")
		case bound[e] != nil:
			f.mended(bound[e], "")
		default:
			note, err := c.renewDir(ctx, e)
			if endsReencrypt(err) {
				return fmt.Errorf("give directory %q a new ID: %w", e.path(), err)
			}
			f.mended(err, "%s", note)
		}
		if !f.Repaired {
			c.hold(e, errHeld)
		}
	}
	return nil
}

// errHeld: what is copied in a copy has to be settled first.
var errHeld = errors.New("a copy of a directory in it is to be repaired before")

// hold keeps a directory and those that it is in from getting new IDs, for what err
// says. A directory that is held already says why those are that it is in.
func (c *fsck) hold(e *fsckEntry, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.node.IsDir() {
		c.held[e.node] = cmp.Or(c.held[e.node], err)
	}
	for n := e.dir; n != nil && c.held[n] == nil; {
		c.held[n] = err
		p, _ := n.at()
		n = p.parent
	}
}

// renewDir puts a directory with a new ID in the place of a copy.
func (c *fsck) renewDir(ctx context.Context, e *fsckEntry) (note string, err error) {
	if !e.isThere() {
		return "", errors.New("it was moved meanwhile")
	}
	t := target{dir: e.dir, name: e.plain, node: e.node}
	if t.attr, err = e.node.attrNow(); err != nil {
		return "", err
	}
	beside, err := e.dir.encode(e.nameBeside())
	if err != nil {
		return "", err
	}
	fresh, _, err := e.dir.Mkdir(beside.plain, 0o700, Owner{})
	if err == unix.EEXIST {
		fresh, _, err = e.dir.Lookup(beside.plain)
	}
	if err != nil {
		return "", err
	}
	stuck, err := c.moveInside(ctx, e, fresh)
	if err != nil {
		return "", err
	}
	attrs, err := e.xattrMap()
	if err != nil {
		return "", err
	}
	if err := t.copyMetadata(ctx, fresh, attrs); err != nil {
		return "", err
	}
	note = "it has an ID of its own now"
	if stuck == 0 && len(e.spoiled) == 0 {
		return note, t.exchange(beside, fresh)
	}
	// What nobody can read goes with the old one.
	f := new(Finding)
	if c.setAside(f, e); !e.aside {
		return "", errors.New(f.Note)
	}
	if err := e.dir.Rename(beside.plain, e.dir, e.plain, RenameNoReplace); err != nil {
		return "", err
	}
	return note + "; the old one has what cannot be read: " + f.Note, nil
}

// settleGathered names directories that took what can be read of a copy, and were
// to take its name when a repair ended: the copy itself was set aside by then.
func (c *fsck) settleGathered() {
	for _, same := range c.dirs {
		for _, e := range same {
			name, ok := e.gatheredFor()
			if !ok {
				continue
			}
			f := c.find(FindingDirCopy, e, "an interrupted repair has left it: it was to take the name of a copy that is set aside")
			if c.options.Repair {
				err := e.move(func(m *move) error { return m.aim(e.dir, name) })
				if f.mended(err, "it is named %q now", name); err == nil {
					p, _ := e.node.at()
					e.plain, e.backing = name, p.backing
				}
			}
		}
	}
}

// gatheredFor is the name of the copy beside which the directory was made, if that is
// not there any more.
func (e *fsckEntry) gatheredFor() (string, bool) {
	at := strings.LastIndex(e.plain, besideMark)
	if e.dir == nil || e.broken || at <= 0 {
		return "", false
	}
	was := fsckEntry{plain: e.plain[:at]}
	to, err := e.dir.encode(was.plain)
	if was.backing = to.backing; err != nil || was.nameBeside() != e.plain {
		if len(e.plain) <= MaxName-utf8.UTFMax {
			return "", false
		}
		// Its name was cut: the whole one is with what was set aside.
		if was.plain, err = e.node.vol.asideBeside(e); err != nil {
			return "", false
		}
	}
	_, err = e.dir.fsckEntry(was.plain)
	return was.plain, err == unix.ENOENT
}

// asideBeside is the name of the copy in lost+found beside which directory e was made.
func (v *Volume) asideBeside(e *fsckEntry) (name string, err error) {
	id, err := e.dir.dirID()
	if err != nil {
		return "", err
	}
	lost, err := v.openLostFound()
	if err != nil {
		return "", err
	}
	defer v.backing.Close(lost)
	b := beneath{backing: v.backing, closed: func(error) error { return nil }}
	b.visit = func(dirfd int, entry dirent, depth int) (into bool, err error) {
		if depth == 1 && isLongName(entry.name) {
			was := fsckEntry{backing: entry.name}
			if was.plain, err = v.decode(id, dirfd, entry.name); err == nil && was.nameBeside() == e.plain {
				name = was.plain
				return false, errFound
			}
		}
		return depth == 0, nil
	}
	if err = b.walk(lost); err == errFound {
		err = nil
	} else {
		err = cmp.Or(err, error(unix.ENOENT))
	}
	return name, err
}

const besideMark = ".copy-"

// nameBeside is the name under which a copy's entries are gathered, the same
// whenever a repair is begun.
func (e *fsckEntry) nameBeside() string {
	suffix := besideMark + strings.TrimPrefix(brokenName(e.backing), brokenPrefix)[:8]
	return withSuffix(e.plain, suffix)
}

// isBegun tells whether entries of the copy were gathered before. An error says
// that it could not be told.
func (e *fsckEntry) isBegun() (bool, error) {
	if e.dir == nil || e.broken {
		return false, nil
	}
	beside, err := e.dir.fsckEntry(e.nameBeside())
	if isStoreError(err) {
		return false, err
	}
	return err == nil && beside.node.IsDir(), nil
}

// moveInside moves the entries of a copy to another directory. What no record
// lets go stays, and is counted.
func (c *fsck) moveInside(ctx context.Context, from *fsckEntry, to *Node) (stuck int, err error) {
	n := from.node
	id, err := n.dirID()
	if err != nil {
		return 0, err
	}
	d, err := n.use()
	if err != nil {
		return 0, err
	}
	defer d.release()
	entries, err := n.listInside(d)
	if err != nil {
		return 0, err
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if n.isOwn(entry.name) {
			continue
		}
		err := c.vol.searching(n, d, func() error { return c.moveEntry(d, n, id, entry.name, to) })
		switch {
		case errors.Is(err, ErrIntegrity):
			stuck++
		case err != nil:
			return 0, fmt.Errorf("move %q: %w", entry.name, err)
		}
	}
	return stuck, nil
}

func (c *fsck) moveEntry(d *descriptor, n *Node, id crypto.ID, backing string, to *Node) error {
	plain, err := c.vol.decode(id, d.fd, backing)
	if err != nil {
		return err
	}
	e, err := n.newFsckEntry(d, plain, backing, false)
	if err != nil {
		return err
	}
	if !e.node.IsDir() {
		defer e.node.Forget()
	}
	return e.move(func(m *move) error { return m.aim(to, plain) })
}

// xattrMap reads the directory's extended attributes but those that are spoiled.
func (e *fsckEntry) xattrMap() (map[string][]byte, error) {
	names, err := e.node.Listxattr()
	if err != nil {
		return nil, err
	}
	out := make(map[string][]byte, len(names))
	for _, name := range names {
		value, err := e.node.Getxattr(name)
		switch {
		case err == nil:
			out[name] = value
		case len(e.spoiled) == 0 || !errors.Is(err, ErrIntegrity):
			return nil, err
		}
	}
	return out, nil
}
