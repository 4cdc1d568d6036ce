package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// dirAck is the last fsync of the directory before the power cut.
func (c *check) dirAck(d *tracked) *dirAck {
	for i := range slices.Backward(d.dirAcks) {
		if d.dirAcks[i].at <= c.k {
			return &d.dirAcks[i]
		}
	}
	return nil
}

// promised tells whether an entry of a directory was synced and not touched since.
func (c *check) promised(d *tracked, name string) *tracked {
	ack := c.dirAck(d)
	if ack == nil || ack.entries[name] == nil {
		return nil
	}
	for _, n := range d.named {
		if n.name == name && n.at >= ack.at && n.at < c.k {
			return nil
		}
	}
	return ack.entries[name]
}

// above sees that directories that synced objects were in are there, unless they
// were moved or removed since.
func (c *check) above() {
	c.needed = map[*tracked]bool{}
	need := func(at int, links []nesting) {
		for _, l := range links {
			touched := slices.ContainsFunc(l.in.dir.named, func(n nameChange) bool {
				return n.name == l.in.name && n.at >= at && n.at < c.k
			})
			if touched || c.needed[l.dir] {
				continue
			}
			c.needed[l.dir] = true
			if !slices.Contains(slices.Collect(maps.Values(c.tree[l.in.dir.obj])), l.dir.obj) {
				c.violation("directory %q, above what was synced, is gone", l.in.name)
			}
		}
	}
	for _, f := range append(slices.Clone(c.all), c.root) {
		if i := c.lastAck(f, false); i >= 0 {
			need(f.acks[i].at, f.acks[i].above)
		}
		if a := c.dirAck(f); a != nil {
			need(a.at, a.above)
		}
	}
}

// hasSynced tells whether there is a synced file in a directory of the state.
func (c *check) hasSynced(o *object) bool {
	for _, child := range c.tree[o] {
		if f := c.byObj[child]; f != nil && (f.isFile() && c.ack(f) >= 0 || f.isDir() && c.hasSynced(child)) {
			return true
		}
	}
	return false
}

// directory compares a directory with the state's and with what was promised.
func (c *check) directory(d *tracked, n *Node, promised bool) {
	found, bad, err := listed(n)
	if err != nil {
		if promised || c.needed[d] || c.hasSynced(d.obj) || c.dirAck(d) != nil {
			c.violation("directory %q, with synced files or synced itself: %v", n.Path(), err)
		}
		return
	}
	if ack := c.dirAck(d); ack != nil {
		for name := range ack.entries {
			want := c.promised(d, name)
			if want == nil {
				continue
			}
			at, ok := found[name]
			if !ok || c.tree[d.obj][at.backing] != want.obj {
				c.violation("%q of directory %q was synced and is not there", name, n.Path())
			}
		}
	}
	for backing, o := range c.tree[d.obj] {
		f := c.byObj[o]
		if f == nil || strings.HasPrefix(backing, tmpPrefix) {
			continue // kmsfs's own, or on its way
		}
		name, at := "", entry{}
		for plain, e := range found {
			if e.backing == backing {
				name, at = plain, e
			}
		}
		if name != "" && !f.names[name] {
			c.violation("%q in directory %q never had this name", name, n.Path())
		}
		c.object(f, at.node, fmt.Sprintf("%q in directory %q", name, n.Path()), name != "" && c.promised(d, name) == f, bad)
	}
}

// entry is what a volume lists.
type entry struct {
	node    *Node
	backing string
}

// listed is what a directory shows, by name, and what it does not and why.
func listed(n *Node) (_ map[string]entry, bad []error, _ error) {
	l, err := n.List()
	if err != nil {
		return nil, nil, err
	}
	if _, err := n.dirID(); err != nil { // an empty one is listed without
		l.Close()
		return nil, nil, err
	}
	defer l.Close()
	found := map[string]entry{}
	for {
		e, err := l.Next()
		if err != nil {
			return found, bad, nil // io.EOF
		}
		if e.Name == "." || e.Name == ".." {
			continue
		}
		child, _, err := n.Lookup(e.Name)
		if err != nil || strings.HasPrefix(e.Name, brokenPrefix) {
			bad = append(bad, fmt.Errorf("%s: %w", e.Name, err))
			continue
		}
		if p, ok := child.at(); ok {
			for _, q := range child.known() {
				if q.name == e.Name && q.parent == n {
					p = q
				}
			}
			found[e.Name] = entry{child, p.backing}
		}
	}
}

// object compares one object; n is nil if the volume does not show it.
func (c *check) object(f *tracked, n *Node, where string, promised bool, bad []error) {
	switch {
	case f.isDir():
		if n != nil {
			c.directory(f, n, promised)
		} else if c.hasSynced(f.obj) {
			c.violation("a directory with synced files is not shown in %s: %v", where, bad)
		}
	case f.isFile():
		if n != nil {
			c.file(f, n, where)
		} else if c.ack(f) >= 0 {
			c.violation("a synced file is not shown in %s: %v", where, bad)
		}
	case n == nil:
	default:
		target, err := n.Readlink()
		if promised && err != nil {
			c.violation("symlink %s was synced: %v", where, err)
		}
		if err == nil && target != f.target {
			c.violation("symlink %s leads elsewhere", where)
		}
	}
}

// ack is the newest version that had been synced; -1 if none had.
func (c *check) ack(f *tracked) int { return c.ackOf(f, false) }

func (c *check) ackOf(f *tracked, attrs bool) int {
	if i := c.lastAck(f, attrs); i >= 0 {
		return f.acks[i].version
	}
	return -1
}

func (c *check) lastAck(f *tracked, attrs bool) int {
	for i, a := range slices.Backward(f.acks) {
		if a.at <= c.k && (a.attrs || !attrs) {
			return i
		}
	}
	return -1
}

// since are the versions that a file may have from one on.
func (c *check) since(f *tracked, version int) []fileVersion {
	end := len(f.versions)
	for end > 1 && f.versions[end-1].at >= c.k {
		end--
	}
	return f.versions[max(0, version):max(end, version+1)]
}

func (c *check) file(f *tracked, n *Node, where string) {
	c.files++
	ack := c.ack(f)
	a, err := n.Attr()
	if err == nil {
		_, err = n.openFile(false)
		if err == nil {
			n.file.release()
		}
	}
	if err != nil {
		if ack >= 0 {
			c.violation("synced file %s: %v", where, err)
		}
		return
	}
	versions := c.since(f, ack)
	least, most := len(versions[0].content), 0
	for _, v := range versions {
		least, most = min(least, len(v.content)), max(most, len(v.content))
	}
	if ack >= 0 && (int(a.Size) < least || int(a.Size) > most) {
		c.violation("synced file %s has %d bytes, want %d to %d", where, a.Size, least, most)
	}
	for block := 0; block*crypto.BlockSize < int(a.Size); block++ {
		c.block(f, n, where, block, ack, versions)
	}
	attr, err := n.Getxattr("user.k")
	if err != nil && !errors.Is(err, unix.ENODATA) {
		c.violation("attribute of file %s: %v", where, err)
	} else if !slices.ContainsFunc(c.since(f, c.ackOf(f, true)), func(v fileVersion) bool { return v.attr == string(attr) }) {
		c.violation("attribute of file %s has a value that it never had since it was synced", where)
	}
}

// anew tells whether a file was cut before a block and then written beyond it, so
// that the block may be one that was appended after the last sync.
func anew(versions []fileVersion, start int) bool {
	cut := slices.IndexFunc(versions, func(v fileVersion) bool { return len(v.content) <= start })
	return cut >= 0 && slices.ContainsFunc(versions[cut:], func(v fileVersion) bool { return len(v.content) > start })
}

func (c *check) block(f *tracked, n *Node, where string, block, ack int, versions []fileVersion) {
	c.blocks++
	buf := make([]byte, crypto.BlockSize)
	got, err := n.ReadAt(context.Background(), buf, int64(block)*crypto.BlockSize)
	synced := ack >= 0 && block*crypto.BlockSize < len(versions[0].content) && !anew(versions, block*crypto.BlockSize)
	c.compare(blockKey{f, block}, where, synced, buf[:got], err)
	if err != nil {
		if !errors.Is(err, ErrIntegrity) && synced {
			c.violation("file %s, block %d: %v", where, block, err)
			return
		}
		changed := slices.ContainsFunc(versions[1:], func(v fileVersion) bool {
			return v.from < (block+1)*crypto.BlockSize && v.to > block*crypto.BlockSize
		})
		switch {
		case c.clean:
			c.violation("file %s, block %d, though the volume had been closed: %v", where, block, err)
		case !synced:
			c.unsynced++
		case !changed || c.strict:
			c.violation("file %s, block %d was synced, overwritten since: %v: %v", where, block, changed, err)
		default:
			c.exceptions++
		}
		return
	}
	buf = buf[:got]
	for _, v := range versions {
		if bytes.Equal(buf, blockOfVersion(&v, block, got)) {
			return
		}
	}
	if synced || !bytes.Equal(buf, make([]byte, got)) {
		c.violation("file %s, block %d has a content that it never had (since it was synced: %v)", where, block, synced)
	}
}
