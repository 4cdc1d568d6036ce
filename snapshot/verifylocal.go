package snapshot

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// local compares what is here with the state. It may be changing meanwhile.
func (v *verify) local(ctx context.Context, f *os.File) error {
	l := &verifying{verify: v, paths: &pathTeller{access: v.access}, groups: make(map[uint64]inodeID)}
	defer l.at.close()
	return each(v.access, f, v.d.Generation, func(x *Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return l.next(x)
	})
}

// verifying is a walk through a manifest, and the backing directory.
type verifying struct {
	*verify
	paths  *pathTeller
	at     dirStack
	gone   int // directories that are open in the manifest, and not here
	extra  []map[string]struct{}
	groups map[uint64]inodeID
}

func (l *verifying) differs(kind, path string) {
	l.report.Counts[kind]++
	if len(l.report.Differences) < maxDifferences {
		l.report.Differences = append(l.report.Differences, Difference{kind, path})
	}
}

func (l *verifying) next(x *Entry) error {
	path := l.paths.next(x)
	if x.Kind == kindUp {
		return l.up(path)
	}
	name := backingName(x.Name)
	if l.gone > 0 {
		if x.Kind == KindDirectory {
			l.gone++
		}
		return nil
	}
	if n := len(l.extra); n > 0 {
		delete(l.extra[n-1], name)
	}
	if x.Name == "" {
		return l.enter(l.root, ".", x, path)
	}
	var st unix.Statx_t
	err := statx(l.at.fd(), name, &st)
	if err == nil && x.Kind != KindLink {
		if kind, kerr := kindOf(st.Mode); kerr != nil || kind != x.Kind {
			l.differs(DifferenceReplaced, path)
			l.pass(x)
			return nil
		}
	}
	switch {
	case err == unix.ENOENT:
		l.differs(DifferenceDeleted, path)
		l.pass(x)
		return nil
	case err != nil:
		l.problem(Problem{Kind: ProblemUnreadable, Name: l.at.path(name), Paths: paths(path), Detail: err.Error()})
		l.pass(x)
		return nil
	case x.Kind == KindDirectory:
		return l.enter(l.at.fd(), name, x, path)
	}
	if x.Group != 0 {
		id := inodeID{device(&st), st.Ino}
		if first, ok := l.groups[x.Group]; ok && first != id {
			l.differs(DifferenceReplaced, path)
		} else if !ok {
			l.groups[x.Group] = id
		}
	}
	if x.Kind == KindLink {
		return nil
	}
	return l.entry(name, x, path)
}

// pass passes over what is in a directory that is not here.
func (l *verifying) pass(x *Entry) {
	if x.Kind == KindDirectory {
		l.gone++
	}
}

func (l *verifying) up(path string) error {
	if l.gone > 0 {
		l.gone--
		return nil
	}
	n := len(l.extra) - 1
	for name := range l.extra[n] {
		l.differs(DifferenceNew, l.nameOf(path, name))
	}
	l.extra = l.extra[:n]
	return l.at.pop()
}

// nameOf is the path of something that is in the directory here alone.
func (l *verifying) nameOf(dir, name string) string {
	full := name
	if isLongName(name) {
		if b, err := readSmall(l.at.fd(), name+crypto.LongSuffix, maxName); err == nil {
			full = string(b)
		}
	}
	d := tellerDir{path: dir}
	if len(l.at.levels) == 1 {
		d.id, d.known = l.access.RootID(), true
	} else if b, err := readSmall(l.at.fd(), recordName, crypto.DirRecordSize); err == nil {
		rec, err := l.access.DirRecord(b)
		d.id, d.known = rec.ID, err == nil
	}
	return l.paths.join(&d, full)
}

func (l *verifying) enter(dirfd int, name string, x *Entry, path string) error {
	var st unix.Statx_t
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == nil {
		var names []string
		if err = statx(fd, "", &st); err == nil {
			names, err = listNames(fd, x.Name == "")
		}
		if err == nil {
			extra := make(map[string]struct{}, len(names))
			for _, n := range names {
				extra[n] = struct{}{}
			}
			if a, aerr := attributesOf(fd, &st); aerr == nil && !sameButTime(&a, &x.Attributes) {
				l.differs(DifferenceAttributes, path)
			}
			if b, rerr := readSmall(fd, recordName, crypto.DirRecordSize); x.Name != "" && rerr == nil {
				if rec, derr := l.access.DirRecord(b); derr != nil {
					l.problem(Problem{Kind: ProblemChanged, Name: l.at.path(name) + "/" + recordName, Paths: paths(path), Detail: derr.Error()})
				} else if old, _ := l.access.DirRecord(x.Record); old.ID != rec.ID {
					l.differs(DifferenceReplaced, path)
				}
			}
			l.extra = append(l.extra, extra)
			return l.at.push(fd, x.Name)
		}
		unix.Close(fd)
	}
	l.problem(Problem{Kind: ProblemUnreadable, Name: name, Paths: paths(path), Detail: err.Error()})
	l.pass(x)
	return nil
}

// sameButTime compares what does not change by what is in a directory.
func sameButTime(a, b *Attributes) bool {
	c := *a
	c.MTime = b.MTime
	return c.equal(b, true)
}

// entry compares a file or something else that is no directory.
func (l *verifying) entry(name string, x *Entry, path string) error {
	fd, err := openat(l.at.fd(), name, unix.O_PATH, 0)
	if err != nil {
		return nil // gone meanwhile
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := statx(fd, "", &st); err != nil {
		return nil
	}
	same := true
	switch x.Kind {
	case KindFile:
		same = l.file(name, x, path, &st)
	case KindSymlink:
		if target, err := readlinkat(l.at.fd(), name); err == nil && target != x.Target {
			l.differs(DifferenceChanged, path)
			same = false
		}
	case KindCharDevice, KindBlockDevice:
		if unix.Mkdev(st.Rdev_major, st.Rdev_minor) != x.Device {
			l.differs(DifferenceReplaced, path)
			same = false
		}
	}
	if a, err := attributesOf(fd, &st); err == nil && same {
		if x.Kind == KindSymlink {
			a.Mode = x.Mode
		}
		if !a.equal(&x.Attributes, true) {
			l.differs(DifferenceAttributes, path)
		}
	}
	return nil
}

// file compares a data file: its record says which content it is, and how old. With
// Full all of it is read.
func (l *verifying) file(name string, x *Entry, path string, st *unix.Statx_t) (same bool) {
	l.report.Files++
	bad := func(kind, detail string) bool {
		l.problem(Problem{Kind: kind, Name: l.at.path(name), Paths: paths(path), Detail: detail})
		return false
	}
	src, err := openSource(l.at.fd(), name, path, st, false)
	if err != nil {
		return bad(ProblemUnreadable, err.Error())
	}
	defer src.close()
	h, err := src.header()
	if err != nil {
		return bad(ProblemTruncated, err.Error())
	}
	f := x.File
	if headerSum(h[:]) != f.Header {
		id, rec, err := l.access.Record(h[:])
		switch {
		case err != nil:
			return bad(ProblemChanged, fmt.Sprintf("record: %v", err))
		case id != f.ID:
			l.differs(DifferenceReplaced, path)
		case rec.Generation < f.Generation:
			return bad(ProblemRollback, fmt.Sprintf("it is of generation %d, and was pushed with %d", rec.Generation, f.Generation))
		default:
			l.differs(DifferenceChanged, path)
		}
		return false
	}
	changed := func() bool {
		now, err := src.header()
		return err != nil || now != h
	}
	if int64(st.Size) != f.CipherSize() && !changed() {
		return bad(ProblemTruncated, fmt.Sprintf("it has %d bytes, and should have %d", st.Size, f.CipherSize()))
	}
	if !l.o.Full {
		return true
	}
	src.file = *f
	sum, err := src.sum()
	if (err != nil || sum != f.Sum) && !changed() {
		return bad(ProblemChanged, "its blocks are not those that were pushed")
	}
	return true
}
