package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// settlePlaces deals with what is not where it belongs, now that it is known what
// else there is: entries whose names do not decrypt, copies that a sync tool or
// somebody else made, and what was only moved.
func (c *fsck) settlePlaces(ctx context.Context) error {
	c.followNames()
	for _, e := range c.nameless {
		if err := c.named(e); err != nil {
			return err
		}
	}
	if !c.live {
		c.settleGathered()
	}
	copies, err := c.settleCopies(ctx)
	if err != nil {
		return err
	}
	dirCopies := c.dirCopies()
	for _, e := range dirCopies {
		copies[e] = true
	}
	for _, e := range c.misplaced {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !e.aside && !copies[e] {
			c.settlePlace(e)
		}
	}
	return c.settleDirCopies(ctx, dirCopies)
}

// settlePlace makes a file or directory belong where it is, if it is no copy.
func (c *fsck) settlePlace(e *fsckEntry) {
	kind, what := FindingBinding, "file"
	if e.node.IsDir() {
		kind, what = FindingDirBinding, "directory"
	}
	f := c.find(kind, e, "it belongs under another name: the backing %s was moved or swapped", what)
	switch {
	case !c.options.Repair && !c.settles():
	case !c.report.Whole:
		f.left("it may be a copy: only a check of the whole volume can tell")
	default:
		f.mended(e.rebind(), "it belongs here from now on")
		if !e.keyless { // nothing is lost with that one
			c.notSettled(f)
		}
	}
}

// followNames says of the further names of files what was found out by the first:
// that nobody can read them, and sets them aside where that was.
func (c *fsck) followNames() {
	for _, same := range c.files {
		for _, first := range same {
			for _, e := range first.others {
				e.keyless = first.keyless
				if first.aside {
					f := c.find(FindingRecord, e, "it is another name of %q", first.path())
					c.setAside(f, e)
					e.aside = f.Repaired
				}
			}
		}
	}
}

// notSettled keeps a volume after a power cut from being called settled, and what it
// may use from being removed, if something could not be mended.
func (c *fsck) notSettled(f *Finding) {
	if !f.Repaired {
		c.lookAway()
	}
}

// rebind makes a file or directory belong where it is.
func (e *fsckEntry) rebind() error {
	here, err := e.binding()
	if err != nil {
		return err
	}
	if e.node.IsDir() {
		return e.node.rewriteDirRecord(func(r *crypto.DirRecord) { dirBindings(r).settle(here) })
	}
	f, err := e.node.openFile(true)
	if err != nil {
		return err
	}
	defer f.release()
	if err := f.believe(); err != nil {
		return err
	}
	if e.nlink > 1 {
		return e.node.markLinked()
	}
	return f.rewriteRecord(func(r *crypto.Record) bool {
		fileBindings(r).settle(here)
		return true
	})
}

// believe takes back that something did not match the seal, if that was nothing
// but the file's place: so its root is kept.
func (f *file) believe() error {
	f.write.Lock()
	defer f.write.Unlock()
	if !f.accepted.Load() {
		return nil
	}
	disk, err := f.diskRecord()
	if err != nil {
		return err
	}
	if disk != f.rec {
		return f.node.integrity(-1, errors.New("its record does not fit its content"))
	}
	f.accepted.Store(false)
	return nil
}

// settleCopies reports files of the same ID, and gives all but one new IDs. It
// tells which entries these are.
func (c *fsck) settleCopies(ctx context.Context) (map[*fsckEntry]bool, error) {
	copies := make(map[*fsckEntry]bool)
	var all [][]*fsckEntry
	for _, same := range c.files {
		if len(same) > 1 {
			all = append(all, same)
		}
	}
	slices.SortFunc(all, func(a, b []*fsckEntry) int { return strings.Compare(a[0].path(), b[0].path()) })
	for _, same := range all {
		slices.SortFunc(same, byPlace)
		for _, e := range same[1:] {
			copies[e] = true
			if err := c.settleCopy(ctx, e, same[0]); err != nil {
				return nil, err
			}
		}
	}
	return copies, nil
}

// byPlace puts that of several copies first which is where it belongs. Where that
// does not tell, a file with hard links stays what it is.
func byPlace(a, b *fsckEntry) int {
	rank := func(e *fsckEntry) int {
		switch {
		case e.astray:
			return 2
		case e.node.IsRegular() && e.nlink > 1:
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a.path(), b.path()))
}

func (c *fsck) settleCopy(ctx context.Context, e, first *fsckEntry) error {
	if e.aside {
		return nil
	}
	f := c.find(FindingCopy, e, "it has the file ID of %q: a copy made behind kmsfs's back, such as a sync tool's", first.path())
	switch {
	case !c.options.Repair:
	case !e.sound:
		f.left("it is damaged itself, and left as it is")
	case e.nlink > 1:
		f.left("it has hard links, and is left as it is")
	case e.broken:
		f.left("it has no name, and is left as it is")
	default:
		err := c.adopt(ctx, e)
		if endsReencrypt(err) {
			return fmt.Errorf("give %q a new file ID: %w", e.path(), err)
		}
		f.mended(err, "it has a file ID and a key of its own now")
	}
	return nil
}

// adopt writes a copy anew, under its own ID and key, in the place of the copy.
func (c *fsck) adopt(ctx context.Context, e *fsckEntry) error {
	f, err := e.node.openFile(false)
	if err != nil {
		return err
	}
	defer f.release()
	// Its sidecar is the other one's: it must not go with it.
	f.accepted.Store(true)
	a, err := e.node.attrNow()
	if err != nil {
		return err
	}
	r := reencrypt{vol: c.vol}
	return r.replace(ctx, target{dir: e.dir, name: e.plain, node: e.node, attr: a})
}

// named reports an entry whose name does not decrypt, and gives it one.
func (c *fsck) named(e *fsckEntry) error {
	if e.aside || e.told {
		return nil
	}
	f := c.find(FindingName, e, "its name does not decrypt: it was renamed or copied behind kmsfs's back, or what its name hangs on is damaged")
	if !c.options.Repair {
		return nil
	}
	name, err := c.rename(e)
	if f.mended(err, "it is named %q now", name); err != nil && !errors.Is(err, ErrIntegrity) {
		c.hold(e, err) // what is around it cannot be settled before
	}
	return nil
}

// rename gives an entry a name: the one that its name begins with, as that of a
// sync tool's copy does, or one that says that it was recovered.
func (c *fsck) rename(e *fsckEntry) (name string, err error) {
	var to entryName
	err = e.move(func(m *move) (err error) {
		name, err = e.freeName(m)
		to = m.to.name
		return err
	})
	if err != nil {
		return "", err
	}
	e.node.undecipherable.Store(false)
	e.plain, e.backing, e.broken = name, to.backing, false
	return name, nil
}

// move moves the entry to where aim opens the other end.
func (e *fsckEntry) move(aim func(*move) error) error {
	id, err := e.dir.dirID()
	if err != nil {
		return err
	}
	d, err := e.dir.use()
	if err != nil {
		return err
	}
	m := move{vol: e.dir.vol, flags: RenameNoReplace, from: end{
		dir: e.dir, desc: d, dirID: id, name: entryName{plain: e.plain, backing: e.backing}, node: e.node,
	}}
	defer m.release()
	if e.node.IsRegular() {
		f, err := e.node.openFile(true)
		if err != nil {
			return err
		}
		defer f.release()
		if err := f.believe(); err != nil {
			return err
		}
		if e.nlink > 1 { // bound to this name only, its others would be wrong
			if err := e.node.markLinked(); err != nil {
				return err
			}
		}
	}
	if err := aim(&m); err != nil {
		return err
	}
	return m.run()
}

// aim opens the end of m that leads to a name that nothing has, else unix.EEXIST.
func (m *move) aim(dir *Node, name string) error {
	to := end{}
	err := to.open(dir, name)
	if err == nil {
		switch err = to.find(); err {
		case unix.ENOENT:
			m.to = to
			return nil
		case nil:
			err = unix.EEXIST
		}
	}
	if to.desc != nil {
		to.desc.release()
	}
	return err
}

// freeName finds a name that nothing has, and opens the end of m that leads there.
func (e *fsckEntry) freeName(m *move) (string, error) {
	sum := strings.TrimPrefix(e.plain, brokenPrefix)
	for try := 1; try < 100; try++ {
		suffix := ""
		if try > 1 {
			suffix = fmt.Sprintf("-%d", try)
		}
		name := "recovered." + sum + suffix
		if base, ok := e.beginning(m.from.dirID); ok {
			suffix = ".conflict-" + sum[:8] + suffix
			name = withSuffix(base, suffix)
		}
		if err := m.aim(e.dir, name); err != unix.EEXIST {
			return name, err
		}
	}
	return "", unix.EEXIST
}

// beginning is the name that a backing name begins with, where somebody has put
// something behind it.
func (e *fsckEntry) beginning(id crypto.ID) (string, bool) {
	end := strings.IndexFunc(e.backing, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
	if end <= 0 {
		return "", false
	}
	name, err := e.node.vol.names.Decrypt(id, e.backing[:end])
	return name, err == nil
}
