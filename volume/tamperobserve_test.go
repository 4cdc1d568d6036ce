package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// observation is all that can be read of a volume: path, NUL, aspect, and what it
// shows. Where it shows an error, the value begins with error.
type observation map[string]string

const (
	errSeen  = "error of integrity: "
	errOther = "error that is none of integrity: "
	absent   = "absent"
)

// observe reads everything in the volume. Entries of base that a listing does
// not show are looked up by name.
func observe(v *Volume, base observation) observation {
	o := make(observation)
	o.directory(v.Root(), "", base)
	return o
}

func (o observation) put(path, aspect, value string, err error) {
	switch {
	case errors.Is(err, ErrIntegrity):
		value = errSeen + err.Error()
	case err != nil:
		value = errOther + err.Error()
	}
	o[path+"\x00"+aspect] = value
}

func (o observation) directory(dir *Node, prefix string, base observation) {
	if strings.Count(prefix, "/") > 16 {
		o.put(prefix, "depth", "", errors.New("the tree does not end"))
		return
	}
	names, err := listNames(dir)
	if err != nil {
		o.put(strings.TrimSuffix(prefix, "/"), "names", "", err)
	}
	for key := range base {
		path, aspect, _ := strings.Cut(key, "\x00")
		rest, ok := strings.CutPrefix(path, prefix)
		if ok && aspect == "kind" && !strings.Contains(rest, "/") && !slices.Contains(names, rest) {
			names = append(names, rest)
		}
	}
	// A damaged directory that is empty lists nothing; looking anything up shows it.
	_, _, err = dir.Lookup("no such name")
	if err == unix.ENOENT {
		err = nil
	}
	o.put(strings.TrimSuffix(prefix, "/"), "probe", "", err)
	for _, name := range names {
		n, a, err := dir.Lookup(name)
		switch {
		case err == unix.ENOENT:
			o.put(prefix+name, "kind", absent, nil)
		case err != nil:
			o.put(prefix+name, "kind", "", err)
		default:
			o.entry(n, a, prefix+name, base)
		}
	}
}

func (o observation) entry(n *Node, a Attr, path string, base observation) {
	o.put(path, "kind", fmt.Sprintf("%o", n.mode), nil)
	o.put(path, "mode", fmt.Sprintf("%o", a.Mode), nil)
	if !n.IsDir() {
		o.put(path, "size", fmt.Sprint(a.Size), nil)
		o.put(path, "links", fmt.Sprint(a.Nlink), nil)
		o.put(path, "device", fmt.Sprint(a.RdevMajor, a.RdevMinor), nil)
	}
	switch {
	case n.IsRegular():
		o.content(n, a, path)
	case n.IsSymlink():
		target, err := n.Readlink()
		o.put(path, "target", target, err)
	case n.IsDir():
		o.directory(n, path+"/", base)
	}
	names, err := n.Listxattr()
	if err != nil {
		o.put(path, "xattrs", "", err)
	}
	for _, name := range names {
		value, err := n.Getxattr(name)
		o.put(path, "xattr "+name, string(value), err)
	}
}

// content reads a file whole if it is small, else in pieces, each of which must
// be right or an error.
func (o observation) content(n *Node, a Attr, path string) {
	piece := uint64(wholeFileBlocks * crypto.BlockSize)
	for off := uint64(0); off == 0 || off < min(a.Size, 1<<20); off += piece {
		b := make([]byte, piece)
		m, err := n.ReadAt(context.Background(), b, int64(off))
		o.put(path, fmt.Sprint("content ", off), string(b[:m]), err)
	}
}

func listNames(dir *Node) ([]string, error) {
	l, err := dir.List()
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var names []string
	for {
		e, err := l.Next()
		if err == io.EOF {
			return names, nil
		}
		if err != nil {
			return names, err
		}
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
}

// difference is what a manipulation changed of what is read.
type difference struct {
	seen   []string // errors of integrity
	silent []string // other values, without an error
	wrong  []string // what must not be: other errors, damage to entries not concerned
}

// compare compares with base. Owners are the entries concerned, with all that is
// below them; "*" is everything.
func (o observation) compare(base observation, owners []string) difference {
	var d difference
	seenAt := make(map[string]bool) // paths with an error
	broken := false
	keys := make(map[string]bool)
	for k := range base {
		keys[k] = true
	}
	for k, value := range o {
		path, _, _ := strings.Cut(k, "\x00")
		keys[k] = true
		if strings.HasPrefix(value, errSeen) {
			seenAt[path] = true
		}
		broken = broken || strings.Contains(path, brokenPrefix)
	}
	for k := range keys {
		path, aspect, _ := strings.Cut(k, "\x00")
		got, shown := o[k]
		want, known := base[k]
		isBroken := strings.Contains(path, brokenPrefix)
		short := func() string { return fmt.Sprintf("%s of %q: %.300q instead of %.60q", aspect, path, got, want) }
		value := strings.HasPrefix(aspect, "content") || aspect == "target" || strings.HasPrefix(aspect, "xattr ")
		switch {
		case shown == known && got == want:
		case strings.HasPrefix(got, errOther):
			d.wrong = append(d.wrong, short())
		case !isBroken && !owned(path, aspect, owners):
			d.wrong = append(d.wrong, "not concerned: "+short())
		case strings.HasPrefix(got, errSeen):
			d.seen = append(d.seen, short())
		case aspect == "links" && len(seenAt) > 0:
			// Another name of the same file is gone, and that was seen.
		case isBroken && !value:
			// Listed as broken; kind and mode are the backing entry's.
		case shown && value:
			d.silent = append(d.silent, short())
		case (got == absent || !shown) && broken || coveredBy(seenAt, path):
		default:
			d.silent = append(d.silent, short())
		}
	}
	if broken {
		d.seen = append(d.seen, "an entry is listed as broken")
	}
	slices.Sort(d.silent)
	slices.Sort(d.wrong)
	return d
}

// linksOnly, after an owner, says that only its number of links is concerned.
const linksOnly = "\x00links"

func owned(path, aspect string, owners []string) bool {
	return slices.ContainsFunc(owners, func(o string) bool {
		return o == "*" || path == o || strings.HasPrefix(path, o+"/") || path+"\x00"+aspect == o
	})
}

// coveredBy tells whether reading path, or a directory above, shows an error.
func coveredBy(seenAt map[string]bool, path string) bool {
	for {
		if seenAt[path] {
			return true
		}
		i := strings.LastIndexByte(path, '/')
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}
