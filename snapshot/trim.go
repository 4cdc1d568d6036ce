package snapshot

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// trim removes what the state does not have, and gives directories their attributes,
// once all is there.
func (p *pull) trim(ctx context.Context) error {
	t := &trimming{pull: p, selection: newSelection(p.access, p.o.Path)}
	defer t.at.close()
	return each(p.access, p.manifest, p.d.Generation, func(x *Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return t.next(x)
	})
}

// trimming is a walk through a manifest.
type trimming struct {
	*pull
	selection *selection
	at        dirStack
	levels    []trimLevel
}

type trimLevel struct {
	x     *Entry
	whole bool                // all that is in it is the state's
	extra map[string]struct{} // what is there and was not in the manifest so far
}

func (t *trimming) next(x *Entry) error {
	role, err := t.selection.of(x)
	if err != nil {
		return err
	}
	if role == passed {
		return nil
	}
	if x.Kind == kindUp {
		return t.leave()
	}
	name := backingName(x.Name)
	if n := len(t.levels); n > 0 {
		extra := t.levels[n-1].extra
		delete(extra, name)
		if name != x.Name {
			delete(extra, name+crypto.LongSuffix)
		}
	}
	if x.Kind != KindDirectory {
		return nil
	}
	fd, err := -1, error(nil)
	if x.Name == "" {
		fd, err = openat(t.root, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	} else {
		fd, err = openWide(t.at.fd(), name, t.asRoot)
	}
	if err != nil {
		return err
	}
	l := trimLevel{x: x, whole: role == chosen, extra: make(map[string]struct{})}
	if l.whole {
		all, err := listAll(fd)
		if err != nil {
			unix.Close(fd)
			return err
		}
		for _, name := range all {
			l.extra[name] = struct{}{}
		}
		if x.Name == "" {
			delete(l.extra, metaDir)
		} else {
			delete(l.extra, recordName)
		}
	}
	t.levels = append(t.levels, l)
	return t.at.push(fd, name)
}

func (t *trimming) leave() error {
	l := t.levels[len(t.levels)-1]
	t.levels = t.levels[:len(t.levels)-1]
	for name := range l.extra {
		if err := removeTree(t.at.fd(), name, t.asRoot); err != nil {
			return fmt.Errorf("remove %s: %w", t.at.path(name), err)
		}
		t.report.Removed++
	}
	if l.whole || t.isNew() {
		if err := t.attributesOf(t.at.fd(), l.x); err != nil {
			return fmt.Errorf("restore %s: %w", t.at.path(""), err)
		}
	}
	return t.at.pop()
}

// isNew tells whether the directory was made by restoring a part of a volume.
func (t *trimming) isNew() bool {
	_, err := readSmall(t.meta, pullingName, 64)
	return err == nil
}

// removeTree removes an entry and all that is below it.
func removeTree(dirfd int, name string, asRoot bool) error {
	err := unix.Unlinkat(dirfd, name, 0)
	if err != unix.EISDIR {
		return ignoreMissing(err)
	}
	fd, err := openWide(dirfd, name, asRoot)
	if err != nil {
		return ignoreMissing(err)
	}
	var at dirStack
	defer at.close()
	// The walk begins above it, in a descriptor of its own.
	above, err := openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		unix.Close(fd)
		return err
	}
	if err := at.push(above, ""); err != nil {
		unix.Close(fd)
		return err
	}
	if err := at.push(fd, name); err != nil {
		return err
	}
	for len(at.levels) > 1 {
		names, err := listAll(at.fd())
		if err != nil {
			return err
		}
		down := ""
		for _, n := range names {
			if err := unix.Unlinkat(at.fd(), n, 0); err == unix.EISDIR {
				down = n
				break
			} else if err != nil && err != unix.ENOENT {
				return err
			}
		}
		if down != "" {
			fd, err := openWide(at.fd(), down, asRoot)
			if err != nil {
				return err
			}
			if err := at.push(fd, down); err != nil {
				return err
			}
			continue
		}
		last := at.levels[len(at.levels)-1].name
		if err := at.pop(); err != nil {
			return err
		}
		if err := unix.Unlinkat(at.fd(), last, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return nil
}

// trimKeys removes sidecars and long targets that nothing in the state uses. Where
// fsck has set something aside, that may need any of them.
func (p *pull) trimKeys() error {
	if fd, err := openat(p.meta, "lost+found", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
		names, err := listAll(fd)
		unix.Close(fd)
		if err != nil || len(names) > 0 {
			return err
		}
	}
	if err := p.trimMeta(linksDir, p.links); err != nil {
		return err
	}
	fd, err := openat(p.meta, keysDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	shelves, err := listAll(fd)
	for _, s := range shelves {
		if err == nil && len(s) == 2 {
			err = p.trimMeta(keysDir+"/"+s, p.ids)
		}
	}
	return err
}

func (p *pull) trimMeta(dir string, used map[crypto.ID]struct{}) error {
	fd, err := openat(p.meta, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := listAll(fd)
	for _, name := range names {
		id, perr := crypto.ParseID(name)
		if _, ok := used[id]; ok && perr == nil {
			continue
		}
		if err := removeTree(fd, name, p.asRoot); err != nil {
			return fmt.Errorf("remove %s/%s/%s: %w", metaDir, dir, name, err)
		}
	}
	return err
}
