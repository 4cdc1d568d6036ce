package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// tamperTree is a volume with one of everything. Beside its backing directory lie
// copies: of it as it is, as it was before the last changes, and of another
// volume's with the same entries.
type tamperTree struct {
	*bench
	mode                KeyMode
	now, older, foreign string
	entries             map[string]tamperEntry // by plaintext path
	strange             map[string]tamperEntry // the other volume's
	base                observation
	touched             map[string]bool // backing paths to put back
	saved               string          // as now, with host state
	failures, tried     int
}

// tamperEntry is where an entry lies in the backing directory.
type tamperEntry struct {
	backing string
	mode    uint32 // S_IFMT bits
	id      crypto.ID
}

const (
	tamperLongName = "long"
	tamperBig      = 34 * crypto.BlockSize // more than is read whole
	tamperDense    = 4*crypto.BlockSize + 100
)

// longTamperName is a name whose encrypted form is too long to be stored.
func longTamperName(i byte) string { return tamperLongName + strings.Repeat(string('a'+i), 196) }

func newTamperTree(t *testing.T, mode KeyMode) *tamperTree {
	kms := newFakeKMS()
	w := &tamperTree{bench: newBenchWith(t, mode, kms), mode: mode, touched: make(map[string]bool)}
	w.older, w.now, w.foreign = filepath.Join(t.TempDir(), "older"), filepath.Join(t.TempDir(), "now"), filepath.Join(t.TempDir(), "foreign")
	v := w.open()
	fillTamperTree(t, v)
	w.close(v)
	copyTree(t, w.dir, w.older)
	v = w.open()
	changeTamperTree(t, v)
	w.close(v)
	copyTree(t, w.dir, w.now)
	w.saved = w.save()

	other := newBenchWith(t, mode, kms)
	v = other.open()
	fillTamperTree(t, v)
	w.strange = tamperEntries(t, v)
	other.close(v)
	copyTree(t, other.dir, w.foreign)

	v = w.open(func(o *Options) { o.ReadOnly = true })
	w.entries = tamperEntries(t, v)
	w.base = observe(v, nil)
	w.close(v)
	for key, value := range w.base {
		if strings.HasPrefix(value, "error") || strings.Contains(key, brokenPrefix) {
			t.Fatalf("before anything is tampered with: %q is %q", key, value)
		}
	}
	return w
}

// fillTamperTree makes every kind of object.
func fillTamperTree(t *testing.T, v *Volume) {
	root := v.Root()
	mkdir := func(parent *Node, name string) *Node {
		n, _, err := parent.Mkdir(name, 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	set := func(n *Node, name, value string) {
		if err := n.Setxattr(name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	createFile(t, root, "empty", nil)
	one := createFile(t, root, "one", []byte("1"))
	set(one, "user.first", "older value")
	set(one, "user.second", "another value")
	set(createFile(t, root, "dense", pattern(tamperDense, 1)), "user.first", "dense's own")
	sparse := createFile(t, root, "sparse", pattern(crypto.BlockSize, 2))
	writeAll(t, sparse, pattern(crypto.BlockSize, 3), 6*crypto.BlockSize)
	createFile(t, root, "big", pattern(tamperBig, 4))
	bigSparse := createFile(t, root, "big sparse", pattern(2*crypto.BlockSize, 4))
	writeAll(t, bigSparse, pattern(crypto.BlockSize, 4), tamperBig)
	for i := range byte(2) {
		n := createFile(t, root, "linked "+string('1'+i), pattern(5000, 5+i))
		if _, err := root.Link(n, "alias "+string('1'+i)); err != nil {
			t.Fatal(err)
		}
		createFile(t, root, longTamperName(i), pattern(100, 7+i))
		for name, target := range map[string]string{"link ": "short target ", "long link ": strings.Repeat("target/", 450)} {
			link, _, err := root.Symlink(name+string('1'+i), target+string('1'+i), Owner{})
			if err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() == 0 && name == "link " {
				set(link, "trusted.first", "of a link "+string('1'+i))
			}
		}
	}
	special(t, root, "fifo", unix.S_IFIFO)
	special(t, root, "socket", unix.S_IFSOCK)
	if os.Geteuid() == 0 {
		special(t, root, "device", unix.S_IFCHR)
	}
	for _, name := range []string{"dir 1", "dir 2"} {
		dir := mkdir(root, name)
		set(dir, "user.first", "older, of "+name)
		createFile(t, dir, "inside", []byte("inside of "+name))
		createFile(t, mkdir(dir, "sub"), "deep", []byte("deep in "+name))
	}
	mkdir(root, "empty dir")
	createFile(t, root, "to be removed", []byte("content of a removed file"))
}

func special(t *testing.T, dir *Node, name string, kind uint32) {
	t.Helper()
	minor := uint32(0)
	if kind == unix.S_IFCHR {
		minor = 3 // /dev/null's
	}
	if _, _, err := dir.Mknod(name, kind|0o644, minor/3, minor, Owner{}); err != nil {
		t.Fatal(err)
	}
}

// changeTamperTree changes what it can without making anything new.
func changeTamperTree(t *testing.T, v *Volume) {
	root := v.Root()
	for name, off := range map[string]int64{"one": 0, "dense": 2 * crypto.BlockSize, "sparse": 6 * crypto.BlockSize, "big": 33 * crypto.BlockSize, "linked 1": 4096} {
		writeAll(t, lookup(t, root, name), []byte("2"), off)
	}
	writeAll(t, lookup(t, root, "big sparse"), []byte("2"), tamperBig)
	if err := lookup(t, root, "one").Setxattr("user.first", []byte("newer value"), 0); err != nil {
		t.Fatal(err)
	}
	if err := lookup(t, root, "dir 1").Setxattr("user.first", []byte("newer"), 0); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link 1": "newer target", "long link 1": strings.Repeat("newer/", 600)} {
		if err := root.Unlink(name); err != nil {
			t.Fatal(err)
		}
		link, _, err := root.Symlink(name, target, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 && name == "link 1" {
			if err := link.Setxattr("trusted.first", []byte("of link 1, newer"), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	writeAll(t, lookup(t, lookup(t, root, "dir 1"), "inside"), []byte("newer"), 0)
	if err := root.Unlink("to be removed"); err != nil {
		t.Fatal(err)
	}
}

// tamperEntries finds every entry's backing path.
func tamperEntries(t *testing.T, v *Volume) map[string]tamperEntry {
	all := make(map[string]tamperEntry)
	var walk func(dir *Node, prefix string)
	walk = func(dir *Node, prefix string) {
		for _, name := range list(t, dir) {
			n := lookup(t, dir, name)
			e := tamperEntry{backing: n.BackingPath(), mode: n.mode}
			if dir != v.root {
				e.backing = filepath.Join(dir.BackingPath(), filepath.Base(n.BackingPath()))
			}
			switch {
			case n.IsRegular():
				e.id = fileID(t, n)
			case n.IsDir():
				walk(n, prefix+name+"/")
			}
			all[prefix+name] = e
		}
	}
	walk(v.Root(), "")
	return all
}

// touch says that a backing path is about to be changed.
func (w *tamperTree) touch(backing string) string {
	w.touched[backing] = true
	for _, group := range [][]string{{"linked 1", "alias 1"}, {"linked 2", "alias 2"}} {
		if backing == w.entries[group[0]].backing || backing == w.entries[group[1]].backing {
			w.touched[w.entries[group[0]].backing] = true
			w.touched[w.entries[group[1]].backing] = true
		}
	}
	return filepath.Join(w.dir, backing)
}

// restore puts back all that was touched.
func (w *tamperTree) restore() {
	w.t.Helper()
	links := make(map[uint64]string)
	for p := range w.touched {
		if err := os.RemoveAll(filepath.Join(w.dir, p)); err != nil {
			w.t.Fatal(err)
		}
	}
	for p := range w.touched {
		if _, err := os.Lstat(filepath.Join(w.now, p)); err == nil {
			copyEntry(w.t, filepath.Join(w.now, p), filepath.Join(w.dir, p), links)
		}
	}
	clear(w.touched)
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	copyEntry(t, from, to, make(map[uint64]string))
}

// copyEntry copies what lies at from, and below, to a path where nothing lies.
// links says where the inodes are that have several names.
func copyEntry(t testing.TB, from, to string, links map[uint64]string) {
	t.Helper()
	var st unix.Stat_t
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("copy %s to %s: %v", from, to, err)
		}
	}
	check(unix.Lstat(from, &st))
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		if there, ok := links[st.Ino]; ok {
			check(os.Link(there, to))
			return
		}
		links[st.Ino] = to
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if st.Size == reserveSize && isReserve(dirent{name: filepath.Base(from), kind: unix.S_IFREG}) {
			f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			check(err)
			defer f.Close()
			check(allocate(System{}, int(f.Fd()), 0, reserveSize)) // nothing is in it
			break
		}
		b, err := os.ReadFile(from)
		check(err)
		check(os.WriteFile(to, b, 0o600))
	case unix.S_IFLNK:
		target, err := os.Readlink(from)
		check(err)
		check(os.Symlink(target, to))
	case unix.S_IFDIR:
		check(os.Mkdir(to, 0o700))
		entries, err := os.ReadDir(from)
		check(err)
		for _, e := range entries {
			copyEntry(t, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), links)
		}
	default:
		check(unix.Mknod(to, st.Mode, int(st.Rdev)))
	}
	for name, value := range xattrsOf(t, from) {
		check(unix.Lsetxattr(to, name, value, 0))
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		check(unix.Chmod(to, st.Mode&0o7777))
	}
}

func xattrsOf(t testing.TB, path string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	b := make([]byte, 4096)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		t.Fatalf("list attributes of %s: %v", path, err)
	}
	for _, name := range strings.Split(string(b[:n]), "\x00") {
		if !strings.HasPrefix(name, crypto.XattrPrefix) && !strings.HasPrefix(name, trustedPrefix) {
			continue
		}
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = value[:n]
	}
	return all
}
