package formatreader

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// readPlace reads what an archive would hold from the directory place itself.
func readPlace(t *testing.T, place string) *archive {
	t.Helper()
	a := &archive{make(map[string]*inode), make(map[string][]string)}
	first := make(map[uint64]*inode)
	err := filepath.WalkDir(place, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == place {
			return err
		}
		rel, _ := filepath.Rel(place, name)
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		n := first[st.Ino]
		if n == nil {
			if n, err = inodeAt(name, &st); err != nil {
				return err
			}
			first[st.Ino] = n
		} else {
			n.names++
		}
		a.inodes[rel] = n
		a.children[path.Dir(rel)] = append(a.children[path.Dir(rel)], path.Base(rel))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func inodeAt(name string, st *unix.Stat_t) (n *inode, err error) {
	n = &inode{
		mode: int64(st.Mode & 0o7777), mtime: time.Unix(st.Mtim.Unix()), number: st.Ino, names: 1, xattrs: make(map[string]string),
		major: int64(unix.Major(st.Rdev)), minor: int64(unix.Minor(st.Rdev)),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.kind = tar.TypeReg
		n.content, err = os.ReadFile(name)
	case unix.S_IFDIR:
		n.kind = tar.TypeDir
	case unix.S_IFLNK:
		n.kind = tar.TypeSymlink
		n.target, err = os.Readlink(name)
	case unix.S_IFIFO:
		n.kind = tar.TypeFifo
	case unix.S_IFSOCK:
		n.kind = socket
	default:
		return nil, fmt.Errorf("%s has mode %o", name, st.Mode)
	}
	if err != nil {
		return nil, err
	}
	list, value := make([]byte, 1<<16), make([]byte, 1<<16)
	size, err := unix.Llistxattr(name, list)
	if err != nil {
		return nil, err
	}
	for _, x := range strings.Split(string(list[:size]), "\x00") {
		if !strings.Contains(x, ".kmsfs.") {
			continue
		}
		size, err := unix.Lgetxattr(name, x, value)
		if err != nil {
			return nil, err
		}
		n.xattrs[x] = string(value[:size])
	}
	return n, nil
}
