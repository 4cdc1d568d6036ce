package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
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

	others   []*fsckEntry // further names of the inode, of the one that is noted
	astray   bool         // it, or a directory above it, is not where it belongs
	aside    bool         // it was set aside
	sought   bool         // its ID was looked for
	told     bool         // what it is was reported
	sound    bool         // a data file: its content and record are
	keyless  bool         // a data file that nobody can read, for want of its sidecar
	number   int          // a directory: how many were looked at before it, those above it included
	original *fsckEntry   // a directory that is a copy: the one that keeps the ID
	spoiled  []*Finding   // its extended attributes that cannot be read
}

func (e *fsckEntry) path() string { return e.join(e.plain, (*Node).Path) }

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
	p := place{parent: n, name: plain, backing: backing}
	if broken && !n.vol.checking && n.vol.isStray(d, p, &st, broken) {
		e.node = n.vol.strayNode(p, &st) // programs use it by its other names
		return e, nil
	}
	e.node = n.vol.intern(p, &st)
	if broken {
		e.node.undecipherable.Store(true)
	}
	return e, nil
}

// symlink looks at a symbolic link's target.
func (c *fsck) symlink(e *fsckEntry) error {
	content, err := e.node.readBackingLink()
	if c.gone(err) {
		return nil
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
	if isStoreError(err) {
		return c.unreadable(e, err)
	}
	if err == nil {
		_, err = c.vol.symlinks.Open(raw)
	}
	if err == nil || e.broken {
		return nil // an entry without a name is one finding
	}
	f := c.find(FindingSymlink, e, "its target cannot be read: %v", err)
	if c.options.Repair {
		c.setAside(f, e)
	}
	return nil
}

// xattrs looks at extended attributes. They are left as they are: a damaged one
// hides nothing but itself.
func (c *fsck) xattrs(e *fsckEntry) {
	n := e.node
	var stored []string
	err := n.onInode(func(fd int) (err error) { stored, err = c.vol.storedXattrs(fd); return err })
	if isStoreError(err) && !errors.Is(err, unix.EOPNOTSUPP) { // a store without them
		c.find(FindingUnreadable, e, "its attributes: %v", err)
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
			f := c.find(FindingXattr, e, "attribute %q: %v", name, cause(err))
			f.left("it cannot be read, and is left as it is")
			e.spoiled = append(e.spoiled, f)
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
