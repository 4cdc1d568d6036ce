package volume

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// needXattrs skips where the store under the test has no attributes.
func needXattrs(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Setxattr(dir, "user.kmsfs-test", nil, 0); err == unix.EOPNOTSUPP {
		t.Skip("no extended attributes here; a temporary directory on ext4, xfs or btrfs runs this")
	}
	_ = unix.Removexattr(dir, "user.kmsfs-test")
}

func setXattr(t *testing.T, n *Node, name string, value []byte) {
	t.Helper()
	if err := n.Setxattr(name, value, 0); err != nil {
		t.Fatalf("set %q of %q: %v", name, n.Path(), err)
	}
}

func wantXattr(t *testing.T, n *Node, name string, want []byte) {
	t.Helper()
	if got, err := n.Getxattr(name); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%q of %q: %d bytes, %v; want %d", name, n.Path(), len(got), err, len(want))
	}
}

func wantXattrs(t *testing.T, n *Node, want ...string) {
	t.Helper()
	got, err := n.Listxattr()
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("attributes of %q: %q, %v; want %q", n.Path(), got, err, want)
	}
}

// backingXattrs reads what the backing store holds, by name.
func backingXattrs(t *testing.T, path string) map[string][]byte {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for name := range strings.SplitSeq(strings.Trim(string(b[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		v := make([]byte, 1<<16)
		m, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = v[:m]
	}
	return out
}

func TestAttributesComeBackAndTheBackingStoreShowsNothingOfThem(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	createFile(t, v.Root(), "file", []byte("content"))
	if _, _, err := v.Root().Mkdir("dir", 0o755, Owner{}); err != nil {
		t.Fatal(err)
	}
	nodes := func() []*Node { return []*Node{v.Root(), lookup(t, v.Root(), "file"), lookup(t, v.Root(), "dir")} }
	const secret = "secret-colour"
	values := map[string][]byte{
		"user." + secret: []byte(secret), "trusted." + secret: nil, "security." + secret: {0},
		"user.\xff\xfe\n": pattern(511-crypto.XattrOverhead, 1), "user.512": pattern(512-crypto.XattrOverhead, 2),
		"user.513": pattern(513-crypto.XattrOverhead, 3),
		"user." + strings.Repeat("n", crypto.MaxXattrName-5): []byte(secret),
	}
	var names []string
	for name := range values {
		names = append(names, name)
	}
	for _, n := range nodes() {
		for name, value := range values {
			setXattr(t, n, name, value)
		}
	}
	v = b.reopened(v)
	for _, n := range nodes() {
		wantXattrs(t, n, names...)
		for name, value := range values {
			wantXattr(t, n, name, value)
		}
		stored := backingXattrs(t, b.backingFile(n))
		if len(stored) != len(values) {
			t.Errorf("%q: %d attributes are stored, want %d", n.Path(), len(stored), len(values))
		}
		for name, value := range stored {
			if !strings.HasPrefix(name, "user.kmsfs.") || strings.Contains(name, secret) || bytes.Contains(value, []byte(secret)) {
				t.Errorf("%q: the backing store shows %q = %q", n.Path(), name, value)
			}
		}
	}
	for _, n := range nodes() {
		for name := range values {
			if err := n.Removexattr(name); err != nil {
				t.Fatal(err)
			}
			if _, err := n.Getxattr(name); err != unix.ENODATA {
				t.Errorf("a removed attribute: %v", err)
			}
		}
		if left := backingXattrs(t, b.backingFile(n)); len(left) > 0 {
			t.Errorf("%q: left behind are %q", n.Path(), left)
		}
	}
}

func TestAttributeFlagsAndLimitsAreThoseOfLinux(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	n := createFile(t, v.Root(), "file", nil)
	long := "user." + strings.Repeat("n", crypto.MaxXattrName-4)
	for _, c := range []struct {
		what string
		got  error
		want error
	}{
		{"replace nothing", n.Setxattr("user.a", nil, unix.XATTR_REPLACE), unix.ENODATA},
		{"create", n.Setxattr("user.a", []byte("1"), unix.XATTR_CREATE), nil},
		{"create again", n.Setxattr("user.a", []byte("2"), unix.XATTR_CREATE), unix.EEXIST},
		{"replace", n.Setxattr("user.a", []byte("3"), unix.XATTR_REPLACE), nil},
		{"remove nothing", n.Removexattr("user.b"), unix.ENODATA},
		{"long name", n.Setxattr(long, nil, 0), unix.ERANGE},
		{"remove long name", n.Removexattr(long), unix.ENODATA},
		{"no name", n.Setxattr("user.", nil, 0), unix.EINVAL},
		{"no namespace", n.Setxattr("colour", nil, 0), unix.EOPNOTSUPP},
		{"other namespace", n.Setxattr("system.other", nil, 0), unix.EOPNOTSUPP},
		{"default ACL of a file", n.Setxattr(ACLDefault, acl(0o7, 0o5, 0, 0o5, 0o5), 0), unix.EOPNOTSUPP},
		{"value over all limits", n.Setxattr("user.c", make([]byte, 1<<16), 0), unix.E2BIG},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	if _, err := n.Getxattr(long); err != unix.ENODATA {
		t.Errorf("get a name that cannot be: %v", err)
	}
	wantXattr(t, n, "user.a", []byte("3"))
	wantXattrs(t, n, "user.a")
	b.close(v)
	v = b.open(func(o *Options) { o.ReadOnly = true })
	n = lookup(t, v.Root(), "file")
	wantXattr(t, n, "user.a", []byte("3"))
	if err := n.Setxattr("user.a", nil, 0); err != unix.EROFS {
		t.Errorf("set in a volume that is read-only: %v", err)
	}
	if err := n.Removexattr("user.a"); err != unix.EROFS {
		t.Errorf("remove in a volume that is read-only: %v", err)
	}
}

func TestAMovedOrDamagedAttributeFailsAlone(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	one, two := createFile(t, v.Root(), "one", []byte("content")), createFile(t, v.Root(), "two", nil)
	setXattr(t, one, "user.a", []byte("value a"))
	a := backingXattrs(t, b.backingFile(one))
	setXattr(t, one, "user.b", []byte("value b"))
	setXattr(t, one, "user.good", []byte("good"))
	var nameA string
	for nameA = range a {
	}
	put := func(n *Node, name string, value []byte) {
		t.Helper()
		if err := unix.Lsetxattr(b.backingFile(n), name, value, 0); err != nil {
			t.Fatal(err)
		}
	}
	storedB, err := one.storedXattr("user.b")
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(a[nameA])
	flipped[len(flipped)-1] ^= 1
	put(one, nameA, flipped)    // damaged
	put(one, storedB, a[nameA]) // under another name
	put(two, nameA, a[nameA])   // of another file
	put(two, "user.foreign", []byte("x"))
	put(two, "user.kmsfs.AAAA", []byte("x"))
	put(two, "user.kmsfs."+strings.Repeat("A", 43), []byte("x"))

	_, err = one.Getxattr("user.a")
	wantIntegrity(t, err, `"one"`, one.BackingPath(), `"user.a"`)
	_, err = one.Getxattr("user.b")
	wantIntegrity(t, err, `"user.b"`)
	_, err = two.Getxattr("user.a")
	wantIntegrity(t, err, `"two"`)
	put(two, nameA, []byte("short"))
	_, err = two.Getxattr("user.a")
	wantIntegrity(t, err, `"two"`)
	wantXattr(t, one, "user.good", []byte("good"))
	if got := readAll(t, one); string(got) != "content" {
		t.Errorf("the content is %q", got)
	}
	for range 3 {
		wantXattrs(t, two, "user.a")
	}
	if n := strings.Count(b.log.String(), "not listed"); n != 2 {
		t.Errorf("%d names were reported, want each of 2 once:\n%s", n, b.log)
	}
	setXattr(t, one, "user.a", []byte("healed"))
	wantXattr(t, one, "user.a", []byte("healed"))
}

func TestSymlinksAndSpecialFilesHaveTheAttributesOfRoot(t *testing.T) {
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	special := func(v *Volume) []*Node {
		return []*Node{lookup(t, v.Root(), "link"), lookup(t, v.Root(), "fifo")}
	}
	if _, _, err := v.Root().Symlink("link", "target", Owner{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := v.Root().Mknod("fifo", unix.S_IFIFO|0o640, 0, 0, Owner{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range special(v) {
		if err := n.Setxattr("user.a", nil, 0); err != unix.EPERM {
			t.Errorf("set user.a of %s: %v", n.Path(), err)
		}
		if _, err := n.Getxattr("user.a"); err != unix.ENODATA {
			t.Errorf("get user.a of %s: %v", n.Path(), err)
		}
		wantXattrs(t, n)
	}
	if err := lookup(t, v.Root(), "link").Setxattr(ACLAccess, acl(7, 5, 5, 5, 5), 0); err != unix.EOPNOTSUPP {
		t.Errorf("ACL of a symlink: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("trusted.* and security.* are for root to set; root runs this")
	}
	// Three bytes shorter than elsewhere, for the backing name is three longer.
	long := "trusted." + strings.Repeat("n", crypto.MaxXattrName-len("trusted.")-3)
	for _, n := range special(v) {
		if err := n.Setxattr(long+"n", nil, 0); err != unix.ERANGE {
			t.Errorf("set a long name of %s: %v", n.Path(), err)
		}
		for _, name := range []string{"trusted.secret", "security.secret", long} {
			setXattr(t, n, name, []byte("secret"))
		}
	}
	v = b.reopened(v)
	for _, n := range special(v) {
		wantXattrs(t, n, "trusted.secret", "security.secret", long)
		for name, value := range backingXattrs(t, b.backingFile(n)) {
			if !strings.HasPrefix(name, "trusted.kmsfs.") || strings.Contains(name, "secret") || bytes.Contains(value, []byte("secret")) {
				t.Errorf("%q: the backing store shows %q = %q", n.Path(), name, value)
			}
		}
		for _, name := range []string{"trusted.secret", "security.secret", long} {
			wantXattr(t, n, name, []byte("secret"))
			if err := n.Removexattr(name); err != nil {
				t.Errorf("remove %s of %s: %v", name, n.Path(), err)
			}
		}
		wantXattrs(t, n)
	}
	fifo, want := lookup(t, v.Root(), "fifo"), acl(6, 4, 6, 6, 0)
	if err := fifo.Setxattr(ACLAccess, want, 0); err == unix.EOPNOTSUPP {
		t.Skip("no POSIX ACLs here; a temporary directory on ext4, xfs or btrfs runs this")
	} else if err != nil {
		t.Fatal(err)
	}
	wantXattr(t, fifo, ACLAccess, want)
	wantXattrs(t, fifo, ACLAccess)
}

func TestARenameKeepsSuidAndSgid(t *testing.T) {
	b := newBench(t, ModeFile) // what an ordinary user writes loses them: run as one, too
	v := b.open()
	for _, mode := range []uint32{0o4755, 0o2755, 0o6711, 0o4444} {
		n, a, err := v.Root().Create("a", mode, Owner{})
		if err != nil || a.Mode&0o7777 != mode {
			t.Fatalf("create with mode %o: %o, %v", mode, a.Mode, err)
		}
		if err := v.Root().Rename("a", v.Root(), "b", 0); err != nil {
			t.Fatal(err)
		}
		if a, err := n.Attr(); err != nil || a.Mode&0o7777 != mode {
			t.Errorf("mode %o after a rename: %o, %v", mode, a.Mode, err)
		}
		if err := v.Root().Unlink("b"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnOrdinaryUsersUnreadableFilesHaveAttributes(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything; an ordinary user runs this")
	}
	b := newBench(t, ModeFile)
	needXattrs(t, b.dir)
	v := b.open()
	for _, mode := range []uint32{0, 0o444, 0o200} {
		name := fmt.Sprintf("%o", mode)
		n := createFile(t, v.Root(), name, []byte("content"))
		setXattr(t, n, "user.a", []byte("1"))
		if _, err := n.SetAttr(context.Background(), Change{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
		v = b.reopened(v)
		n = lookup(t, v.Root(), name)
		before, err := n.Attr()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Getxattr(capabilityXattr); err != unix.ENODATA {
			t.Errorf("mode %o: %v", mode, err)
		}
		if after, _ := n.Attr(); after != before {
			t.Errorf("mode %o: a look for what is not there moved the ctime", mode)
		}
		wantXattr(t, n, "user.a", []byte("1"))
		setXattr(t, n, "user.b", []byte("2"))
		wantXattr(t, n, "user.b", []byte("2"))
		if err := n.Removexattr("user.a"); err != nil {
			t.Error(err)
		}
		if a, _ := n.Attr(); a.Mode&0o7777 != mode {
			t.Errorf("mode %o became %o", mode, a.Mode&0o7777)
		}
	}
}
