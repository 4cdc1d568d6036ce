package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// checkUnpushed is ErrUnpushed if there are data files here that would be lost:
// newer ones than in the state, in the newest one and in that which was pushed or
// pulled last, and those that none of them has.
func (p *pull) checkUnpushed(ctx context.Context) error {
	local := &localFiles{access: p.access, newest: make(map[crypto.ID]localFile)}
	if err := p.walkChosen(ctx, local); err != nil {
		return err
	}
	if err := local.strike(p.access, p.manifest, p.d.Generation); err != nil {
		return err
	}
	if p.report.Newest != p.d.Generation && len(local.newest) > 0 {
		f, _, err := openState(ctx, p.access, p.bucket, p.host, p.report.Newest)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := local.strike(p.access, f, p.report.Newest); err != nil {
			return err
		}
	}
	if f, generation := p.host.last(); f != nil && len(local.newest) > 0 {
		defer f.Close()
		if err := local.strike(p.access, f, generation); err != nil {
			return err
		}
	}
	for _, f := range local.newest {
		return fmt.Errorf("%d files in %s are newer than in the copy, or not in it, and would be lost, such as %s: %w",
			len(local.newest), p.dir, f.path, ErrUnpushed)
	}
	return nil
}

// walkChosen walks through what is here of what is to be restored.
func (p *pull) walkChosen(ctx context.Context, w walker) error {
	if p.o.Path == "" {
		return walkTree(ctx, p.root, true, w)
	}
	var names []string
	s := newSelection(p.access, p.o.Path)
	err := each(p.access, p.manifest, p.d.Generation, func(x *Entry) error {
		role, err := s.of(x)
		if err != nil || s.Found && role != chosen {
			return errors.Join(err, errFound)
		}
		switch {
		case x.Name == "" || role == passed:
		case s.Found:
			names = append(names, backingName(x.Name))
			return errFound
		case role == above:
			names = append(names, backingName(x.Name))
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return err
	}
	if !s.Found || len(names) == 0 {
		return nil // restore says so
	}
	fd, err := openBelow(p.root, names[:len(names)-1])
	if err != nil {
		return nil // not here yet
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	last := names[len(names)-1]
	if err := statx(fd, last, &st); err != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		down, err := openat(fd, last, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer unix.Close(down)
		return walkTree(ctx, down, true, w)
	}
	at := &dirStack{levels: []dirLevel{{fd: fd}}}
	return w.entry(at, last, &st)
}

// errFound ends a search.
var errFound = errors.New("found")

// localFiles is a walk that looks what data files there are.
type localFiles struct {
	access *volume.Access
	newest map[crypto.ID]localFile
}

type localFile struct {
	generation uint64
	path       string
}

func (l *localFiles) enter(*dirStack, int, string, *unix.Statx_t) (bool, error) { return true, nil }
func (l *localFiles) leave(*dirStack) error                                     { return nil }

func (l *localFiles) entry(at *dirStack, name string, st *unix.Statx_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	src, err := openSource(at.fd(), name, "", st, true)
	if err != nil {
		return err
	}
	defer src.close()
	h, err := src.header()
	if err != nil {
		return nil // damaged: there is nothing to lose
	}
	id, rec, err := l.access.Record(h[:])
	if err == nil && rec.Generation >= l.newest[id].generation {
		l.newest[id] = localFile{rec.Generation, at.path(name)}
	}
	return nil
}

// strike takes away what a state has, in that version or a later one.
func (l *localFiles) strike(a *volume.Access, f *os.File, generation uint64) error {
	return each(a, f, generation, func(x *Entry) error {
		if x.Kind == KindFile && x.File.Generation >= l.newest[x.File.ID].generation {
			delete(l.newest, x.File.ID)
		}
		return nil
	})
}
