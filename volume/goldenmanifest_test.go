package volume

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// goldenManifest says what the plaintext of a golden volume is. Paths, targets and
// attributes are quoted as Go does it, in ASCII, since names are any bytes.
type goldenManifest struct {
	FormatVersion int     `json:"format_version"`
	KeyMode       KeyMode `json:"key_mode"`
	Volume        string  `json:"volume_id"`
	Fingerprint   string  `json:"fingerprint"`
	Passphrase    string  `json:"passphrase"` // of the keystore
	// Unfinished is what the mount was in the middle of, as if killed.
	Unfinished struct {
		Session string `json:"session"`
		Path    string `json:"path"`   // of the file that a slot is a change of
		SHA256  string `json:"sha256"` // of its content when the change is made
		From    string `json:"from"`   // what an intent of a rename is of
		To      string `json:"to"`
		Logged  bool   `json:"logged"` // the slot is of a strict mount
	} `json:"unfinished"`
	Rotated *goldenRotated `json:"rotated,omitempty"` // of that kind alone
	Entries []goldenEntry  `json:"entries"`
}

type goldenEntry struct {
	Path   string            `json:"path"` // "." for the root
	Kind   string            `json:"kind"`
	Mode   string            `json:"mode"` // octal
	Size   uint64            `json:"size,omitempty"`
	SHA256 string            `json:"sha256,omitempty"`
	Target string            `json:"target,omitempty"`
	Device string            `json:"device,omitempty"` // MAJOR:MINOR
	Xattrs map[string]string `json:"xattrs,omitempty"`
	Links  string            `json:"links,omitempty"` // the first path of the same file, if it has several
	Mtime  string            `json:"mtime"`
}

var goldenKinds = map[uint32]string{
	unix.S_IFREG: "file", unix.S_IFDIR: "directory", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "character device", unix.S_IFBLK: "block device",
}

func asciiOnly(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return quoted[1 : len(quoted)-1]
}

// describe reads all that there is in a volume.
func describe(t *testing.T, v *Volume) []goldenEntry {
	t.Helper()
	var out []goldenEntry
	first := make(map[uint64]string)
	var walk func(n *Node, path string)
	walk = func(n *Node, path string) {
		e := describeNode(t, n, path)
		if a := must(n.Attr())(t); a.Nlink > 1 && !n.IsDir() {
			if first[a.Ino] == "" {
				first[a.Ino] = e.Path
			}
			e.Links = first[a.Ino]
		}
		out = append(out, e)
		if !n.IsDir() {
			return
		}
		names := list(t, n)
		slices.Sort(names)
		for _, name := range names {
			walk(lookup(t, n, name), strings.TrimPrefix(path+"/"+name, "./"))
		}
	}
	walk(v.Root(), ".")
	return out
}

func describeNode(t *testing.T, n *Node, path string) goldenEntry {
	t.Helper()
	a := must(n.Attr())(t)
	mode := a.Mode & 0o7777
	if n.IsSymlink() {
		mode = 0o777
	}
	e := goldenEntry{
		Path: asciiOnly(path), Kind: goldenKinds[a.Mode&unix.S_IFMT], Mode: fmt.Sprintf("%04o", mode),
		Mtime: time.Unix(a.Mtime.Sec, int64(a.Mtime.Nsec)).UTC().Format(time.RFC3339Nano),
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		b := readAll(t, n)
		sum := sha256.Sum256(b)
		e.Size, e.SHA256 = a.Size, hex.EncodeToString(sum[:])
	case unix.S_IFLNK:
		e.Target = asciiOnly(must(n.Readlink())(t))
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Device = fmt.Sprintf("%d:%d", a.RdevMajor, a.RdevMinor)
	}
	for _, name := range must(n.Listxattr())(t) {
		if e.Xattrs == nil {
			e.Xattrs = make(map[string]string)
		}
		e.Xattrs[asciiOnly(name)] = asciiOnly(string(must(n.Getxattr(name))(t)))
	}
	return e
}

// withoutRoot leaves out what only root could unpack, unless this is root.
func withoutRoot(entries []goldenEntry) []goldenEntry {
	if os.Geteuid() == 0 {
		return entries
	}
	var out []goldenEntry
	for _, e := range entries {
		if e.Device != "" {
			continue
		}
		if e.Kind != "file" && e.Kind != "directory" {
			e.Xattrs = nil
		}
		out = append(out, e)
	}
	return out
}

// mustAgree compares entries by their paths.
func mustAgree(t *testing.T, got, want []goldenEntry) {
	t.Helper()
	show := func(entries []goldenEntry) map[string]string {
		out := make(map[string]string)
		for _, e := range entries {
			b, err := json.Marshal(e)
			ok(t, err)
			out[e.Path] = string(b)
		}
		return out
	}
	g, w := show(got), show(want)
	for _, path := range slices.Sorted(maps.Keys(w)) {
		if g[path] != w[path] {
			t.Errorf("%s\n  is     %.600s\n  should %.600s", path, g[path], w[path])
		}
		delete(g, path)
	}
	for _, path := range slices.Sorted(maps.Keys(g)) {
		t.Errorf("%s should not be there", path)
	}
}
