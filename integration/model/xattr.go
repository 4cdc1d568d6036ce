package model

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrNames are few, so that operations meet; ext4 has 4 KiB for all of an
// inode's, names and values as they are stored.
var xattrNames = []string{
	"user.a", "user.\xff odd\n", "user." + strings.Repeat("n", 100),
	"trusted.a", "security.kmsfs-test", // root's
}

func (w *walker) xattrName() string {
	names := xattrNames
	if os.Geteuid() != 0 {
		names = names[:3]
	}
	return names[w.rng.IntN(len(names))]
}

// xattr sets, reads or removes an attribute.
func (w *walker) xattr(p string, n *node) {
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return
	}
	name := w.xattrName()
	old, there := n.xattrs[name]
	switch w.rng.IntN(5) {
	case 0:
		w.last = fmt.Sprintf("read attribute %q of %q", name, p)
		w.getXattr(p, name, old, there)
	case 1:
		w.last = fmt.Sprintf("remove attribute %q of %q", name, p)
		want := unix.Errno(0)
		if !there {
			want = unix.ENODATA
		}
		if w.expect(w.fs.Removexattr(p, name), w.supported(want)) {
			delete(n.xattrs, name)
		}
	default:
		flags := []int{0, 0, unix.XATTR_CREATE, unix.XATTR_REPLACE}[w.rng.IntN(4)]
		value := pattern([]int{0, 1, 40, 300}[w.rng.IntN(4)], byte(w.step))
		w.last = fmt.Sprintf("set attribute %q of %q to %d bytes, flags %d", name, p, len(value), flags)
		want := unix.Errno(0)
		switch {
		case there && flags == unix.XATTR_CREATE:
			want = unix.EEXIST
		case !there && flags == unix.XATTR_REPLACE:
			want = unix.ENODATA
		}
		if w.expect(w.fs.Setxattr(p, name, value, flags), w.supported(want)) {
			if n.xattrs == nil {
				n.xattrs = map[string][]byte{}
			}
			n.xattrs[name] = value
		}
	}
}

// supported is what a target answers that may have no attributes at all.
func (w *walker) supported(want unix.Errno) unix.Errno {
	if !w.o.Store.Xattrs {
		return unix.EOPNOTSUPP
	}
	return want
}

func (w *walker) getXattr(p, name string, value []byte, there bool) {
	got, err := w.fs.Getxattr(p, name)
	want := unix.Errno(0)
	if !there {
		want = unix.ENODATA
	}
	if w.expect(err, w.supported(want)) && !bytes.Equal(got, value) {
		w.fail("attribute %q of %q: %d bytes, want %d", name, p, len(got), len(value))
	}
}

// compareXattrs compares the list and every value. What the host gives to
// files by itself, as SELinux does, does not count.
func (w *walker) compareXattrs(p string, n *node) {
	if n.kind != unix.S_IFREG && n.kind != unix.S_IFDIR {
		return
	}
	got, err := w.fs.Listxattr(p)
	if !w.expect(err, w.supported(0)) {
		return
	}
	got = slices.DeleteFunc(got, func(name string) bool {
		return strings.HasPrefix(name, "security.") && !slices.Contains(xattrNames, name)
	})
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(n.xattrs)); !slices.Equal(got, want) {
		w.fail("attributes of %q: %q, want %q", p, got, want)
	}
	for name, value := range n.xattrs {
		w.getXattr(p, name, value, true)
	}
}
