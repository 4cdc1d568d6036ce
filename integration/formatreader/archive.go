package formatreader

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// inode is what one or more names of the archive stand for.
type inode struct {
	kind         byte // a type flag of tar, or 's' for a socket
	mode         int64
	mtime        time.Time
	content      []byte
	target       string // of a symlink
	major, minor int64
	xattrs       map[string]string
	names        int
	number       uint64 // of the inode where it was packed; 0 if not told
	first        string // the plaintext path that it was seen under first
}

// archive is a backing directory, and what belongs to it, by path.
type archive struct {
	inodes   map[string]*inode
	children map[string][]string // names in a directory
}

const socket = 's'

func readArchive(r io.Reader) (*archive, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	a := &archive{make(map[string]*inode), make(map[string][]string)}
	in := tar.NewReader(zip)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(h.Name, "/")
		a.children[path.Dir(name)] = append(a.children[path.Dir(name)], path.Base(name))
		if h.Typeflag == tar.TypeLink {
			linked := a.inodes[h.Linkname]
			if linked == nil {
				return nil, fmt.Errorf("%s is a link to nothing", name)
			}
			linked.names++
			a.inodes[name] = linked
			continue
		}
		n := &inode{
			kind: h.Typeflag, mode: h.Mode, mtime: h.ModTime, target: h.Linkname,
			major: h.Devmajor, minor: h.Devminor, xattrs: make(map[string]string), names: 1,
		}
		if h.PAXRecords["KMSFS.socket"] != "" {
			n.kind = socket
		}
		n.number, _ = strconv.ParseUint(h.PAXRecords["KMSFS.inode"], 10, 64)
		for record, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(record, "SCHILY.xattr."); ok {
				n.xattrs[name] = value
			}
		}
		if n.content, err = io.ReadAll(in); err != nil {
			return nil, err
		}
		a.inodes[name] = n
	}
}

// file gives the content and mode of a regular file.
func (a *archive) file(name string) ([]byte, int64, error) {
	n := a.inodes[name]
	if n == nil || n.kind != tar.TypeReg {
		return nil, 0, fmt.Errorf("%s is no file", name)
	}
	return n.content, n.mode, nil
}

func (a *archive) has(dir, name string) bool { return slices.Contains(a.children[dir], name) }

// remove takes an entry out, with all below it.
func (a *archive) remove(name string) {
	for _, child := range slices.Clone(a.children[name]) {
		a.remove(path.Join(name, child))
	}
	delete(a.children, name)
	if n := a.inodes[name]; n != nil {
		n.names--
	}
	delete(a.inodes, name)
	dir := path.Dir(name)
	a.children[dir] = slices.DeleteFunc(a.children[dir], func(s string) bool { return s == path.Base(name) })
}

// add puts an entry in that has nothing below it.
func (a *archive) add(name string, n *inode) {
	a.inodes[name] = n
	a.children[path.Dir(name)] = append(a.children[path.Dir(name)], path.Base(name))
}
