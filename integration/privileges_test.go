package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// serverOf is the status of the process that serves a mount in the background.
func serverOf(t *testing.T, mountpoint string) string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		b, _ := os.ReadFile(file) // it may be gone
		if line := string(b); strings.Contains(line, "\x00--daemon\x00") && strings.HasSuffix(line, "\x00"+mountpoint+"\x00") {
			status, err := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
			if err != nil {
				t.Fatal(err)
			}
			return string(status)
		}
	}
	t.Fatalf("no daemon serves %s", mountpoint)
	return ""
}

func TestADaemonOfRootHasFewPrivilegesAndDoesWhatRootMay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a daemon of root's needs root, who runs this")
	}
	d := newDaemon(t)
	openWayTo(t, d.Dir)
	d.run("mount", "--allow-other", "-o", "suid,dev", d.Backing, d.Dir)
	t.Cleanup(func() {
		if isMounted(d.Dir) {
			_ = detach(d.Dir)
		}
	})
	if status := serverOf(t, d.Dir); !strings.Contains(status, "NoNewPrivs:\t1\n") || strings.Contains(status, "CapEff:\t000001ffffffffff\n") {
		t.Errorf("the daemon has\n%s", status)
	}
	at := func(name string) string { return filepath.Join(d.Dir, name) }
	if err := os.Chmod(d.Dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	// A user's own directory, closed to all others, and root in it.
	if err := as(t, 1000, 1000, nil, "cd "+d.Dir+" && mkdir -m 700 home && echo mine > home/file && chmod 0000 home/file"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"read what its owner closed to himself", func() error { _, err := os.ReadFile(at("home/file")); return err }},
		{"write it", func() error { return os.WriteFile(at("home/file"), []byte("root's"), 0) }},
		{"make a file there", func() error { return os.WriteFile(at("home/root"), []byte("x"), 0o600) }},
		{"give it away", func() error { return os.Chown(at("home/root"), 1234, 4321) }},
		{"set suid and sgid of another group", func() error { return unix.Chmod(at("home/root"), 0o6755) }},
		{"set times of another's file", func() error { return unix.Utimes(at("home/file"), []unix.Timeval{{Sec: 1}, {Sec: 2}}) }},
		{"make a device", func() error { return unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) }},
		{"use it", func() error { return os.WriteFile(at("null"), []byte("x"), 0) }},
		{"set a trusted attribute", func() error { return unix.Setxattr(at("home"), "trusted.t", []byte("v"), 0) }},
		{"set one of a symlink", func() error {
			if err := os.Symlink("x", at("link")); err != nil {
				return err
			}
			return unix.Lsetxattr(at("link"), "trusted.t", []byte("v"), 0)
		}},
		{"set a capability", func() error {
			return unix.Setxattr(at("home/file"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
		}},
		{"set an ACL", func() error {
			return unix.Setxattr(at("home"), "system.posix_acl_access", []byte("\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"), 0)
		}},
		{"remove another's", func() error { return os.Remove(at("home/file")) }},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
	}
	if st := stat(t, at("home/root")); st.Uid != 1234 || st.Gid != 4321 || st.Mode&0o7777 != 0o6755 {
		t.Errorf("%d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	d.run("unmount", d.Dir)
	if isMounted(d.Dir) {
		t.Error("still mounted")
	}
}
