package integration

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// facts are what a copy must have kept of an entry.
type facts struct {
	Mode     uint32
	UID, GID uint32
	Size     int64
	Nlink    uint64
	Mtime    unix.Timespec
	Content  string
}

// tree gathers the facts of everything below a directory.
func tree(t testing.TB, root string) map[string]facts {
	t.Helper()
	out := make(map[string]facts)
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		f := facts{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size, Nlink: uint64(st.Nlink), Mtime: st.Mtim}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			f.Size, f.Nlink = 0, 0 // each file system's own affair
		case unix.S_IFLNK:
			f.Content, err = os.Readlink(p)
		case unix.S_IFREG:
			var b []byte
			b, err = os.ReadFile(p)
			f.Content = string(b)
		}
		rel, _ := filepath.Rel(root, p)
		out[rel] = f
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sameTree compares two directories, and returns how many entries they have.
func sameTree(t testing.TB, want, got string) int {
	t.Helper()
	a, b := tree(t, want), tree(t, got)
	different := 0
	for _, name := range slices.Sorted(maps.Keys(a)) {
		f, ok := b[name]
		if ok && f == a[name] {
			continue
		}
		if different++; different <= 5 {
			w := a[name]
			same := w.Content == f.Content
			w.Content, f.Content = "", ""
			t.Errorf("%q: there %v, %+v, want %+v, same content: %v", name, ok, f, w, same)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			t.Errorf("%q is there and should not be", name)
		}
	}
	return len(a)
}

// oddTree makes what copying programs get wrong.
func oddTree(t testing.TB, dir string, xattrs bool) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	check(os.MkdirAll(at("sub/deep"), 0o755))
	check(os.WriteFile(at("one"), bytes.Repeat([]byte("one"), 5000), 0o444))
	check(os.Link(at("one"), at("two")))
	check(os.Link(at("one"), at("sub/three")))
	check(os.Symlink("sub/three", at("link")))
	check(os.Symlink(strings.Repeat("d/", 700)+"nowhere", at("dangling")))
	check(os.WriteFile(at("\xff\xfe not UTF-8\n"), nil, 0o600))
	check(os.WriteFile(at(strings.Repeat("n", 255)), []byte("a long name"), 0o640))
	check(os.WriteFile(at("suid"), []byte("#!/bin/sh\n"), 0o755))
	check(os.Chmod(at("suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
	check(unix.Mkfifo(at("fifo"), 0o620))
	sparse, err := os.Create(at("sparse"))
	check(err)
	for _, off := range []int64{1 << 20, 5<<20 + 17, 16<<20 - 5} {
		_, err = sparse.WriteAt([]byte("here"), off)
		check(err)
	}
	check(sparse.Truncate(24 << 20))
	check(sparse.Close())
	if xattrs {
		check(unix.Setxattr(at("suid"), "user.test", []byte("a value"), 0))
		// rsync without privileges fails on a 0555 directory with attributes, on ext4 too.
		dir := "sub"
		if os.Geteuid() != 0 {
			dir = "sub/deep"
		}
		check(unix.Setxattr(at(dir), "user.test", []byte("of a directory"), 0))
	}
	check(os.Chtimes(at("one"), time.Unix(1, 2), time.Unix(1234567890, 123456789)))
	check(os.Chmod(at("sub"), 0o555|os.ModeSetgid))
	check(os.Chtimes(at("sub"), time.Unix(3, 4), time.Unix(4000000000, 1)))
	t.Cleanup(func() { _ = os.Chmod(at("sub"), 0o755) })
}

func TestTarBringsATreeThereAndBackWithItsMetadata(t *testing.T) {
	t.Parallel()
	need(t, "tar")
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		home := t.TempDir()
		from, to, back := filepath.Join(home, "from"), filepath.Join(d.Dir, "to"), filepath.Join(home, "back")
		s := shell{t: t, Dir: home}
		s.run("mkdir", "from", "back", to)
		s.run("cp", "-r", "--preserve=timestamps,mode", goSource(t, "encoding"), "from/")
		oddTree(t, filepath.Join(from, "odd"), false)
		s.run("tar", "--format=posix", "-S", "-cf", "a.tar", "-C", from, ".")
		s.run("tar", "-xpSf", "a.tar", "-C", to)
		defer func() { // or what is left could not be removed
			_ = os.Chmod(filepath.Join(to, "odd/sub"), 0o755)
			_ = os.Chmod(filepath.Join(back, "odd/sub"), 0o755)
		}()
		sameTree(t, from, to)
		s.run("tar", "-df", "a.tar", "-C", to)
		d.remount()
		n := sameTree(t, from, to)
		s.run("tar", "--format=posix", "-S", "-cf", "b.tar", "-C", to, ".")
		s.run("tar", "-xpSf", "b.tar", "-C", back)
		sameTree(t, from, back)
		t.Logf("%d entries", n)
	})
}

func TestRsyncFindsNoDifferenceInEitherDirection(t *testing.T) {
	t.Parallel()
	need(t, "rsync")
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		if !d.lacksXattrs() {
			d.flags = append(d.flags, "--options=acl") // on a private mount they are off otherwise
			d.remount()
		}
		home := t.TempDir()
		from, to, back := filepath.Join(home, "from"), filepath.Join(d.Dir, "to"), filepath.Join(home, "back")
		s := shell{t: t, Dir: home}
		s.run("mkdir", from, to, back)
		const exact = "--modify-window=-1" // else times are compared and set by the second
		how := "-aHAX"
		if err := unix.Setxattr(to, "user.test", []byte("x"), 0); err != nil {
			t.Logf("without ACLs and extended attributes: setxattr: %v", err)
			how = "-aH"
		} else if err := unix.Removexattr(to, "user.test"); err != nil {
			t.Fatal(err)
		}
		s.run("cp", "-r", goSource(t, "encoding"), "from/")
		oddTree(t, filepath.Join(from, "odd"), how == "-aHAX")
		if how == "-aHAX" {
			need(t, "setfacl")
			s.run("setfacl", "-m", "u:33:r", "from/odd/suid")
			s.run("setfacl", "-d", "-m", "g:33:rx", "from/encoding")
		}
		defer func() { // or what is left could not be removed
			_ = os.Chmod(filepath.Join(to, "odd/sub"), 0o755)
			_ = os.Chmod(filepath.Join(back, "odd/sub"), 0o755)
		}()
		same := func(a, b string) {
			t.Helper()
			if out := s.run("rsync", how, exact, "-n", "--checksum", "--delete", "--itemize-changes", a+"/", b+"/"); out != "" {
				t.Errorf("rsync %s sees differences: %.1000s", how, out)
			}
		}
		s.run("rsync", how, exact, "--sparse", from+"/", to+"/")
		same(from, to)
		d.remount()
		same(from, to)
		same(to, from)
		n := sameTree(t, from, to)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(to, "odd/sparse"), &st); err != nil || st.Blocks*512 > 4<<20 {
			t.Errorf("the sparse file takes %d bytes, %v", st.Blocks*512, err)
		}
		s.run("rsync", how, exact, "--sparse", to+"/", back+"/")
		same(from, back)
		sameTree(t, from, back)
		// A change is carried over into the existing file, and by a new one.
		s.run("sh", "-c", "printf changed >> from/odd/sparse; chmod u+w from/odd/two; printf x >> from/odd/two")
		s.run("rsync", how, exact, "--inplace", from+"/", to+"/")
		same(from, to)
		sameTree(t, from, to)
		t.Logf("%d entries with rsync %s", n, how)
	})
}

// A daemon without CAP_FSETID clears the bits of a backing file that it writes
// to, as it does for a new name: it has to restore them.
func TestSuidBitsSurviveLinksAndRenames(t *testing.T) {
	t.Parallel()
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		const want = 0o755 | os.ModeSetuid | os.ModeSetgid
		for i, call := range []func(a, b string) error{os.Rename, os.Link} {
			a, b := filepath.Join(d.Dir, fmt.Sprint("a", i)), filepath.Join(d.Dir, fmt.Sprint("b", i))
			err := os.WriteFile(a, []byte("#!/bin/sh\n"), 0o755)
			if err == nil {
				err = os.Chmod(a, want)
			}
			if err == nil {
				err = call(a, b)
			}
			if err != nil {
				t.Fatal(err)
			}
			d.remount()
			if st, err := os.Stat(b); err != nil || st.Mode() != want {
				t.Errorf("mode %v, %v, want %v", st.Mode(), err, want)
			}
		}
	})
}
