package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
)

func withXattrs(t *testing.T, edit ...func(*fs.Options)) *mounted {
	t.Helper()
	m := newVolume(t, volume.ModeFile)
	if err := unix.Setxattr(m.Backing, "user.kmsfs-test", nil, 0); err == unix.EOPNOTSUPP {
		t.Skip("no extended attributes here; a temporary directory on ext4, xfs or btrfs runs this")
	}
	_ = unix.Removexattr(m.Backing, "user.kmsfs-test")
	// Other users have to get there.
	if err := os.Chmod(filepath.Dir(m.Dir), 0o755); err != nil {
		t.Fatal(err)
	}
	m.mount(edit...)
	return m
}

func allowOther(o *fs.Options) { o.AllowOther = true }

func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("%s; root runs this", why)
	}
}

// sh runs a script as a user, in a directory, and returns what it says.
func sh(t *testing.T, dir string, uid uint32, groups []uint32, script string) string {
	t.Helper()
	// Not by c.Dir: a fork stands still in chdir, and all of this process with
	// it when the collector comes by, which serves the mount.
	c := exec.Command("sh", "-c", `cd "$1" || exit; `+script, "sh", dir)
	if uid != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Sprintf("%s%v\n", out, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// listXattrs lists the names, sorted.
func listXattrs(t *testing.T, path string) []string {
	t.Helper()
	b := make([]byte, 1<<16)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		t.Fatal(err)
	}
	names := strings.FieldsFunc(string(b[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	return names
}

func TestAttributesOnAMountAreThoseOfALocalFileSystem(t *testing.T) {
	m := withXattrs(t)
	for _, kind := range []string{"file", "dir"} {
		path := filepath.Join(m.Dir, kind)
		var err error
		if kind == "file" {
			err = os.WriteFile(path, []byte("content"), 0o644)
		} else {
			err = os.Mkdir(path, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		value := bytes.Repeat([]byte("v"), 1000)
		small := make([]byte, 999)
		for _, c := range []struct {
			what string
			call func() (int, error)
			n    int
			err  error
		}{
			{"get none", func() (int, error) { return unix.Getxattr(path, "user.a", small) }, -1, unix.ENODATA},
			{"size of none", func() (int, error) { return unix.Getxattr(path, "user.a", nil) }, -1, unix.ENODATA},
			{"empty list", func() (int, error) { return unix.Listxattr(path, nil) }, 0, nil},
			{"replace none", func() (int, error) { return 0, unix.Setxattr(path, "user.a", value, unix.XATTR_REPLACE) }, 0, unix.ENODATA},
			{"create", func() (int, error) { return 0, unix.Setxattr(path, "user.a", value, unix.XATTR_CREATE) }, 0, nil},
			{"create again", func() (int, error) { return 0, unix.Setxattr(path, "user.a", value, unix.XATTR_CREATE) }, 0, unix.EEXIST},
			{"size", func() (int, error) { return unix.Getxattr(path, "user.a", nil) }, 1000, nil},
			{"too small", func() (int, error) { return unix.Getxattr(path, "user.a", small) }, -1, unix.ERANGE},
			{"get", func() (int, error) { return unix.Getxattr(path, "user.a", make([]byte, 2000)) }, 1000, nil},
			{"set empty", func() (int, error) { return 0, unix.Setxattr(path, "user.empty", nil, 0) }, 0, nil},
			{"get empty", func() (int, error) { return unix.Getxattr(path, "user.empty", small) }, 0, nil},
			{"list size", func() (int, error) { return unix.Listxattr(path, nil) }, len("user.a\x00user.empty\x00"), nil},
			{"list too small", func() (int, error) { return unix.Listxattr(path, small[:3]) }, -1, unix.ERANGE},
			{"remove", func() (int, error) { return 0, unix.Removexattr(path, "user.empty") }, 0, nil},
			{"remove none", func() (int, error) { return 0, unix.Removexattr(path, "user.empty") }, 0, unix.ENODATA},
			{"no namespace", func() (int, error) { return 0, unix.Setxattr(path, "colour", nil, 0) }, 0, unix.EOPNOTSUPP},
		} {
			if n, err := c.call(); err != c.err || err == nil && n != c.n {
				t.Errorf("%s: %s: %d, %v; want %d, %v", kind, c.what, n, err, c.n, c.err)
			}
		}
		if got := listXattrs(t, path); !slices.Equal(got, []string{"user.a"}) {
			t.Errorf("%s: list %q", kind, got)
		}
	}
	link := filepath.Join(m.Dir, "link")
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lsetxattr(link, "user.a", nil, 0); err != unix.EPERM {
		t.Errorf("attribute of a symlink: %v", err)
	}
	if got := listXattrs(t, link); len(got) > 0 {
		t.Errorf("attributes of a symlink: %q", got)
	}
	// Without ACLs there is nobody to enforce one.
	if err := unix.Setxattr(filepath.Join(m.Dir, "file"), aclAccess, aclOf(6, 4, 7, 7, 0), 0); err != unix.EOPNOTSUPP {
		t.Errorf("ACL on a mount without: %v", err)
	}
	// They are still there after another mount, and of an open file that has no name.
	m.unmount()
	m.mount()
	f, err := os.Open(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Fgetxattr(int(f.Fd()), "user.a", nil); err != nil || n != 1000 {
		t.Errorf("attribute after unlink: %d, %v", n, err)
	}
	if err := unix.Fsetxattr(int(f.Fd()), "user.b", []byte("x"), 0); err != nil {
		t.Errorf("set after unlink: %v", err)
	}
}

func TestWithoutAttributesProgramsAreToldSo(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount(func(o *fs.Options) { o.NoXattr = true })
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 { // asked, and remembered by the kernel
		_, get := unix.Getxattr(path, "user.a", nil)
		_, list := unix.Listxattr(path, nil)
		for what, err := range map[string]error{
			"get": get, "list": list, "set": unix.Setxattr(path, "user.a", nil, 0), "remove": unix.Removexattr(path, "user.a"),
			"ACL": unix.Setxattr(path, aclAccess, aclOf(6, 4, 7, 7, 0), 0),
		} {
			if err != unix.EOPNOTSUPP {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func TestTrustedAttributesAreForRoot(t *testing.T) {
	needRoot(t, "trusted.* is for root")
	m := withXattrs(t, allowOther)
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"trusted.a", "user.a"} {
		if err := unix.Setxattr(path, name, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := listXattrs(t, path); !slices.Equal(got, []string{"trusted.a", "user.a"}) {
		t.Errorf("root sees %q", got)
	}
	out := sh(t, m.Dir, 4711, nil, "getfattr -d -m - file; setfattr -n trusted.b -v 1 file")
	if !strings.Contains(out, `user.a="1"`) || strings.Contains(out, "trusted.a") || !strings.Contains(out, "not permitted") {
		t.Errorf("another user sees:\n%s", out)
	}
}

// aclOf is a POSIX ACL in its binary form, with an entry for user 4711.
func aclOf(user, group, named, mask, other uint16) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	const none = 0xffffffff
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, user, none}, {0x02, named, 4711}, {0x04, group, none}, {0x10, mask, none}, {0x20, other, none}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

// plainDir is a directory beside, with what the mount's root has.
func plainDir(t *testing.T, m *mounted) string {
	t.Helper()
	plain := t.TempDir()
	for _, dir := range []string{plain, m.Dir} {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Setxattr(plain, aclDefault, aclOf(7, 5, 7, 7, 0), 0); err == unix.EOPNOTSUPP {
		t.Skip("no POSIX ACLs here; a temporary directory on ext4, xfs or btrfs runs this")
	}
	_ = unix.Removexattr(plain, aclDefault)
	return plain
}

// TestACLsActAsOnALocalFileSystem runs the same commands on a mount and beside
// it, and compares what they say and what they leave.
func TestACLsActAsOnALocalFileSystem(t *testing.T) {
	needRoot(t, "it takes several users")
	for _, tool := range []string{"setfacl", "getfacl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here; a machine with the acl package runs this", tool)
		}
	}
	m := withXattrs(t, allowOther)
	plain := plainDir(t, m)
	const show = `; find . 2>/dev/null | LC_ALL=C sort | while read -r f; do stat -c '%n %A %u:%g' "$f"; getfacl -cnp "$f" 2>&1; done`
	for _, c := range []struct {
		uid    uint32
		groups []uint32
		script string
	}{
		{4711, nil, `umask 027; echo hi >a; mkdir d; mkfifo p; mkdir -m 0500 r; mkdir -m 1777 sticky`},
		{4711, nil, `umask 077; setfacl -d -m u:4712:rwx,g:4713:rx,o::r d; setfacl -m u:4712:rwx,g:4713:rx d; cd d; echo hi >f; mkdir s; mkfifo p; mkdir -m 500 r; install -m 640 /dev/null i; ln -s f l; umask 0; echo hi >g; mkdir t`},
		{4711, nil, `umask 077; cd d/s; echo deep >f; mkdir -p x/y; cp -p ../f q; cp f n`},
		{4711, nil, `setfacl -m u:4712:rw a; stat -c %A a; chmod 604 a; stat -c %A a; getfacl -cn a; chmod g+r a`},
		{4712, nil, `cat a; echo more >>a; echo no >>d/s/f; cat d/s/f; touch d/new; ls d/s/x; cat d/r/none`},
		{4713, nil, `cat a; ls d; cat d/f; touch d/new2`},
		{4713, []uint32{4711}, `cat a; cat d/f`},
		{4714, nil, `cat a; cat d/f; ls d; setfacl -m u:4714:rw a`},
		{4711, nil, `setfacl -x u:4712 a; getfacl -cn a; setfacl -b a; stat -c %A a`},
		{4712, nil, `cat a`},
		{0, nil, `chown 4711:4715 a; chmod 2771 a; stat -c %A a`},
		{4711, nil, `setfacl -m u:4712:rx a; stat -c %A a`}, // not in the group: setgid goes
		{0, nil, `chmod 2771 a`},
		{4711, []uint32{4715}, `setfacl -m u:4712:r a; stat -c %A a`}, // in the group: it stays
		{0, nil, `chmod 2777 d; setfacl -k d; cd d; umask 026; echo hi >after; mkdir afterdir`},
		{4711, nil, `umask 0; setfacl -d -m u::r-x,g::-,o::- d/s; mkdir d/s/narrow; echo x >d/s/narrowfile; touch d/s/narrow/no`},
		{4711, nil, `umask 022; mv d/f d/s/moved; ln d/g d/s/linked; mv d/t d/s/t2; setfacl -m u:4716:7 d/s/moved; : >d/s/moved`},
		{0, nil, `chown 4712 d/s/moved; chmod 600 d/s/moved; chmod u+s d/g`},
	} {
		got := sh(t, m.Dir, c.uid, c.groups, c.script+show)
		want := sh(t, plain, c.uid, c.groups, c.script+show)
		if got != want {
			t.Errorf("as %d: %s\n%s", c.uid, c.script, differing(got, want))
		}
	}
	// What the page cache and dentries held says nothing else.
	before := sh(t, m.Dir, 0, nil, "true"+show)
	m.unmount()
	m.mount(allowOther)
	if after := sh(t, m.Dir, 0, nil, "true"+show); after != before {
		t.Errorf("after another mount: %s", differing(after, before))
	}
}

// differing is where b departs from a, with some lines before.
func differing(a, b string) string {
	la, lb := strings.Split(a, "\n"), strings.Split(b, "\n")
	i := 0
	for i < len(la) && i < len(lb) && la[i] == lb[i] {
		i++
	}
	part := func(l []string) string { return strings.Join(l[max(0, i-8):min(len(l), i+8)], "\n") }
	return fmt.Sprintf("from line %d on, the mount:\n%s\nbeside it:\n%s", i, part(la), part(lb))
}

func TestAPrivateMountEnforcesACLsWhereAsked(t *testing.T) {
	m := withXattrs(t, func(o *fs.Options) { o.ACL = true })
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := aclOf(6, 4, 7, 7, 0)
	if err := unix.Setxattr(path, aclAccess, want, 0); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&0o777 != 0o670 {
		t.Errorf("the mode is %o, %v; the mask should show in it", st.Mode&0o777, err)
	}
	b := make([]byte, 100)
	if n, err := unix.Getxattr(path, aclAccess, b); err != nil || !bytes.Equal(b[:n], want) {
		t.Errorf("the ACL is %x, %v", b[:max(n, 0)], err)
	}
	if got := listXattrs(t, path); !slices.Equal(got, []string{aclAccess}) {
		t.Errorf("list %q", got)
	}
}

func TestCapabilityIsDroppedByWhatChangesTheFile(t *testing.T) {
	needRoot(t, "file capabilities are for root to give")
	m := withXattrs(t, allowOther)
	plain := plainDir(t, m)
	// cap_net_raw=ep, revision 2
	caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		uid    uint32
		script string
	}{
		{0, `echo more >>f`}, {0, `: >f`}, {0, `truncate -s 3 f`}, {0, `chown 4711 f`}, {0, `chgrp 4711 f`},
		{4711, `echo more >>f`}, {4711, `truncate -s 3 f`},
		{0, `cat f`}, {0, `chmod 755 f`}, {0, `mv f g; mv g f`}, {0, `ln f h; rm h`}, {0, `touch f`},
		{0, `setfattr -n user.a -v 1 f`},
	} {
		var left [2]bool
		for i, dir := range []string{m.Dir, plain} {
			path := filepath.Join(dir, "f")
			_ = os.Remove(path)
			// Its pages are still dirty when it gets its capability.
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setxattr(path, capability, caps, 0); err != nil {
				t.Fatal(err)
			}
			if out := sh(t, dir, 0, nil, "sync f"); out != "" {
				t.Fatal(out)
			}
			if n, err := unix.Getxattr(path, capability, nil); err != nil || n != len(caps) {
				t.Fatalf("the capability did not outlive fsync: %d, %v", n, err)
			}
			sh(t, dir, c.uid, nil, c.script)
			_, err := unix.Getxattr(path, capability, nil)
			left[i] = err == nil
		}
		if left[0] != left[1] {
			t.Errorf("as %d: %s: the capability stays %v, on a local file system %v", c.uid, c.script, left[0], left[1])
		}
	}
}

func TestAWriteWithoutAttributesStillDropsTheCapability(t *testing.T) {
	needRoot(t, "file capabilities are for root to give")
	m := withXattrs(t)
	path := filepath.Join(m.Dir, "f")
	caps := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := os.WriteFile(path, []byte("content"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, capability, caps, 0); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	m.mount(func(o *fs.Options) { o.NoXattr = true })
	sh(t, m.Dir, 0, nil, "echo other >>f")
	m.unmount()
	m.mount()
	if _, err := unix.Getxattr(path, capability, nil); err != unix.ENODATA {
		t.Errorf("the capability outlived a write: %v", err)
	}
}
