package snapshot

import (
	"fmt"
	"path"
	"strings"

	"kmsfs/crypto"
	"kmsfs/volume"
)

// selection goes along with the entries of a manifest, and tells what each is to a
// path in the volume.
type selection struct {
	access *volume.Access
	names  []string // plaintext, from the root on
	next   string   // encrypted, of what is looked for where the walk is
	depth  int      // directories that are open
	inside int      // depth at which what was looked for began; 0 for not in it
	skip   int      // directories that are open and passed over
	Found  bool
}

// role is what an entry is to a selection.
type role int

const (
	passed role = iota // neither it nor what is in it
	above              // a directory that leads to what is looked for
	chosen             // it is that, or in it
)

// newSelection takes a path as a mount shows it; "" is all.
func newSelection(a *volume.Access, p string) *selection {
	s := &selection{access: a}
	if p = strings.Trim(path.Clean("/"+p), "/"); p != "" {
		s.names = strings.Split(p, "/")
	}
	return s
}

// of takes the next entry.
func (s *selection) of(x *Entry) (role, error) {
	if x.Kind == kindUp {
		s.depth--
		switch {
		case s.skip > 0:
			s.skip--
			return passed, nil
		case s.inside > 0 && s.depth+1 >= s.inside:
			if s.depth+1 == s.inside {
				s.inside, s.next = 0, ""
			}
			return chosen, nil
		}
		s.next = "" // what was looked for was below
		return above, nil
	}
	r, err := s.entry(x)
	if x.Kind == KindDirectory {
		s.depth++
		switch {
		case r == passed:
			s.skip++
		case r == chosen && s.inside == 0:
			s.inside = s.depth
		}
	}
	return r, err
}

func (s *selection) entry(x *Entry) (role, error) {
	switch {
	case s.skip > 0:
		return passed, nil
	case s.inside > 0:
		return chosen, nil
	case s.depth == 0 && len(s.names) == 0:
		s.Found = true
		return chosen, nil
	case s.depth == 0:
		return above, s.lookFor(s.access.RootID(), 0)
	case s.next == "" || x.Name != s.next:
		return passed, nil
	case s.depth == len(s.names):
		s.Found = true
		return chosen, nil
	case x.Kind != KindDirectory:
		return passed, nil
	}
	rec, err := s.access.DirRecord(x.Record)
	if err != nil {
		return passed, fmt.Errorf("directory record: %w", err)
	}
	return above, s.lookFor(rec.ID, s.depth)
}

func (s *selection) lookFor(dir crypto.ID, i int) (err error) {
	s.next, err = s.access.EncryptName(dir, s.names[i])
	return err
}
