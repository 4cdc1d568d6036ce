package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// restore makes everything that the state has. What it does not have stays where it
// is not in the way; attributes of directories come later (trim).
func (p *pull) restore(ctx context.Context) error {
	r := &restoring{pull: p, crew: newCrew(ctx, p.o.Jobs), groups: make(map[uint64]*group), selection: newSelection(p.access, p.o.Path)}
	defer r.at.close()
	err := each(p.access, p.manifest, p.d.Generation, func(x *Entry) error {
		if err := r.crew.ctx.Err(); err != nil {
			return context.Cause(r.crew.ctx)
		}
		return r.next(x)
	})
	if werr := r.crew.wait(); werr != nil {
		return werr
	}
	if err == nil && !r.selection.Found {
		err = fmt.Errorf("there is no %s in state %d: %w", p.o.Path, p.d.Generation, os.ErrNotExist)
	}
	return err
}

// restoring is a walk through a manifest.
type restoring struct {
	*pull
	crew      *crew
	selection *selection
	at        dirStack
	groups    map[uint64]*group
}

// group is a link group: where its first name is, or, where that was passed over,
// what it would be.
type group struct {
	entry  *Entry
	path   []string // backing names from BACKING on
	placed bool
}

func (r *restoring) next(x *Entry) error {
	role, err := r.selection.of(x)
	if err != nil {
		return err
	}
	if x.Group != 0 && x.Kind != KindLink {
		r.groups[x.Group] = &group{entry: x}
	}
	switch {
	case role == passed:
		return nil
	case x.Kind == kindUp:
		return r.at.pop()
	case x.Kind == KindDirectory:
		err = r.directory(x)
	default:
		err = r.entry(x)
	}
	if err != nil && len(r.at.levels) > 0 {
		return fmt.Errorf("restore %s: %w", r.at.path(backingName(x.Name)), err)
	}
	return err
}

func (r *restoring) entry(x *Entry) error {
	name := backingName(x.Name)
	if x.Kind != KindLink {
		if x.Group != 0 {
			r.groups[x.Group].placedAt(&r.at, name)
		}
		return r.place(x, x.Name)
	}
	g := r.groups[x.Group]
	if !g.placed {
		g.placedAt(&r.at, name)
		return r.place(g.entry, x.Name)
	}
	if err := r.crew.wait(); err != nil { // the first name must be there
		return err
	}
	return r.link(g, x.Name)
}

func (g *group) placedAt(at *dirStack, name string) {
	g.placed = true
	for _, l := range at.levels[1:] {
		g.path = append(g.path, l.name)
	}
	g.path = append(g.path, name)
}

// place makes an entry under a full encrypted name of the directory where the walk is.
func (r *restoring) place(x *Entry, full string) error {
	name := backingName(full)
	if err := r.longName(full); err != nil {
		return err
	}
	switch x.Kind {
	case KindFile:
		r.note(r.ids, x.File.ID)
		fd, err := unix.FcntlInt(uintptr(r.at.fd()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		path := r.at.path(name)
		r.crew.do(func(ctx context.Context) error {
			defer unix.Close(fd)
			if err := r.file(ctx, fd, name, x); err != nil {
				return fmt.Errorf("restore %s: %w", path, err)
			}
			return nil
		})
		return nil
	case KindSymlink:
		return r.symlink(name, x)
	}
	return r.special(name, x)
}

func (p *pull) note(set map[crypto.ID]struct{}, id crypto.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	set[id] = struct{}{}
}

// longName writes the file of a long name.
func (r *restoring) longName(full string) error {
	name := backingName(full)
	if name == full {
		return nil
	}
	if b, err := readSmall(r.at.fd(), name+crypto.LongSuffix, maxName); err == nil && string(b) == full {
		return nil
	}
	return r.replaceSmall(r.at.fd(), name+crypto.LongSuffix, []byte(full))
}

// directory makes a directory, or goes into the one that is there.
func (r *restoring) directory(x *Entry) error {
	if x.Name == "" {
		fd, err := openat(r.root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err == nil {
			err = widen(fd, r.asRoot)
		}
		if err != nil {
			return err
		}
		return r.at.push(fd, "")
	}
	if err := r.longName(x.Name); err != nil {
		return err
	}
	name := backingName(x.Name)
	var st unix.Statx_t
	err := statx(r.at.fd(), name, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := removeTree(r.at.fd(), name, r.asRoot); err != nil {
			return err
		}
		err = unix.ENOENT
	}
	if err == unix.ENOENT {
		err = r.makeDirectory(name, x)
	}
	if err != nil {
		return err
	}
	fd, err := openWide(r.at.fd(), name, r.asRoot)
	if err != nil {
		return err
	}
	b, err := readSmall(fd, recordName, crypto.DirRecordSize)
	if err != nil || !bytes.Equal(b, x.Record) {
		if err := r.replaceSmall(fd, recordName, x.Record); err != nil {
			unix.Close(fd)
			return err
		}
	}
	return r.at.push(fd, name)
}

// makeDirectory makes it with its record, so that it never is without.
func (r *restoring) makeDirectory(name string, x *Entry) error {
	tmp, err := r.temporary()
	if err != nil {
		return err
	}
	at := r.at.fd()
	if err := unix.Mkdirat(at, tmp, 0o700); err != nil {
		return err
	}
	fd, err := openat(at, tmp, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := r.replaceSmall(fd, recordName, x.Record); err != nil {
		return err
	}
	r.placed()
	return unix.Renameat(at, tmp, at, name)
}

func (p *pull) placed() {
	p.mu.Lock()
	p.report.Placed++
	p.mu.Unlock()
}

// temporary is a name for something on its way.
func (p *pull) temporary() (string, error) {
	id, err := crypto.NewID(p.o.Random)
	return tmpPrefix + id.String(), err
}

// openWide opens a directory that can be worked in, also where its owner gave up
// the right to: trim gives it its mode.
func openWide(dirfd int, name string, asRoot bool) (int, error) {
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.EACCES && !asRoot {
		p, err := openat(dirfd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(p)
		if err := chmodOpen(p, 0o700); err != nil {
			return -1, err
		}
		return openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	}
	if err == nil {
		err = widen(fd, asRoot)
	}
	return fd, err
}

func widen(fd int, asRoot bool) error {
	var st unix.Statx_t
	if asRoot {
		return nil
	}
	if err := statx(fd, "", &st); err != nil || st.Mode&0o700 == 0o700 || int(st.Uid) != os.Geteuid() {
		return err
	}
	return chmodOpen(fd, uint32(st.Mode)&0o7777|0o700)
}

func (r *restoring) symlink(name string, x *Entry) error {
	if x.Long != nil {
		id, err := crypto.ParseID(x.Target)
		if err != nil {
			return fmt.Errorf("its target: %w", ErrManifest)
		}
		r.note(r.links, id)
		if err := r.inMeta(linksDir, id.String(), x.Long); err != nil {
			return err
		}
	}
	target, err := readlinkat(r.at.fd(), name)
	if err == nil && target == x.Target {
		return r.attributes(r.at.fd(), name, x)
	}
	return r.make(name, x, func(at int, tmp string) error { return unix.Symlinkat(x.Target, at, tmp) })
}

func (r *restoring) special(name string, x *Entry) error {
	mode := map[Kind]uint32{KindFIFO: unix.S_IFIFO, KindSocket: unix.S_IFSOCK, KindCharDevice: unix.S_IFCHR, KindBlockDevice: unix.S_IFBLK}[x.Kind]
	var st unix.Statx_t
	if err := statx(r.at.fd(), name, &st); err == nil && uint32(st.Mode)&unix.S_IFMT == mode && unix.Mkdev(st.Rdev_major, st.Rdev_minor) == x.Device {
		return r.attributes(r.at.fd(), name, x)
	}
	return r.make(name, x, func(at int, tmp string) error { return unix.Mknodat(at, tmp, mode|x.Mode, int(x.Device)) })
}

// make makes something under a temporary name, gives it its attributes, and then its
// name.
func (r *restoring) make(name string, x *Entry, make func(at int, tmp string) error) error {
	tmp, err := r.temporary()
	if err != nil {
		return err
	}
	at := r.at.fd()
	if err := make(at, tmp); err != nil {
		return err
	}
	if err := r.attributes(at, tmp, x); err != nil {
		return err
	}
	r.placed()
	return r.rename(at, tmp, name)
}

// rename gives a temporary its name, in the place of whatever has it.
func (p *pull) rename(at int, tmp, name string) error {
	err := unix.Renameat(at, tmp, at, name)
	if err == unix.EISDIR {
		if err := removeTree(at, name, p.asRoot); err != nil {
			return err
		}
		err = unix.Renameat(at, tmp, at, name)
	}
	return err
}

// attributes gives an entry the attributes that it should have, if it has others.
func (p *pull) attributes(at int, name string, x *Entry) error {
	fd, err := openat(at, name, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return p.attributesOf(fd, x)
}

func (p *pull) attributesOf(fd int, x *Entry) error {
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return err
	}
	now, err := attributesOf(fd, &st)
	if err != nil {
		return err
	}
	isLink := x.Kind == KindSymlink
	if isLink {
		now.Mode = x.Mode
	}
	if now.equal(&x.Attributes, p.asRoot) {
		return nil
	}
	if err := x.apply(fd, isLink, p.asRoot); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	return nil
}

// link makes one more name of the first of a group.
func (r *restoring) link(g *group, full string) error {
	if err := r.longName(full); err != nil {
		return err
	}
	name := backingName(full)
	dir, err := openBelow(r.root, g.path[:len(g.path)-1])
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	first := g.path[len(g.path)-1]
	var a, b unix.Statx_t
	if err := statx(dir, first, &a); err != nil {
		return err
	}
	if err := statx(r.at.fd(), name, &b); err == nil && a.Ino == b.Ino && device(&a) == device(&b) {
		return nil
	}
	tmp, err := r.temporary()
	if err != nil {
		return err
	}
	if err := unix.Linkat(dir, first, r.at.fd(), tmp, 0); err != nil {
		return err
	}
	r.placed()
	return r.rename(r.at.fd(), tmp, name)
}

// openBelow opens a directory by the names of those that lead to it.
func openBelow(root int, names []string) (int, error) {
	fd, err := openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; err == nil && i < len(names); i++ {
		var next int
		next, err = openat(fd, names[i], unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd = next
	}
	return fd, err
}
