package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

// as runs a shell command as an ordinary user.
func as(t *testing.T, uid, gid uint32, groups []uint32, command string) error {
	t.Helper()
	c := exec.Command("/bin/sh", "-c", command)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := c.CombinedOutput()
	if len(out) > 0 {
		t.Logf("%s: %s", command, out)
	}
	return err
}

// openToAll mounts for everybody and makes the way to the mount passable.
func openToAll(t *testing.T) *mounted {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("changing users needs root, who runs this")
	}
	m := newVolume(t, volume.ModeFile)
	openWayTo(t, m.Dir)
	m.mount(func(o *fs.Options) {
		o.AllowOther = true
		o.KernelOptions = []string{"suid"}
	})
	if err := unix.Chmod(m.Dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	return m
}

// openWayTo lets everybody come to a directory of a test.
func openWayTo(t *testing.T, dir string) {
	t.Helper()
	for ; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestWhatAUserMakesBelongsToHim(t *testing.T) {
	m := openToAll(t)
	if err := as(t, 1000, 1001, nil, "cd "+m.Dir+" && echo x > file && mkdir dir && ln -s t link && mkfifo fifo && ln file hard"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "dir", "link", "fifo", "hard"} {
		if st := stat(t, filepath.Join(m.Dir, name)); st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
		}
	}
	// In a setgid directory the group is the directory's, and passed on.
	shared := filepath.Join(m.Dir, "shared")
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(shared, 0, 2000); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(shared, 0o2777); err != nil {
		t.Fatal(err)
	}
	if err := as(t, 1000, 1001, nil, "cd "+shared+" && echo x > file && mkdir dir && echo y > dir/file && mkdir -m 500 low"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "dir", "dir/file", "low"} {
		st := stat(t, filepath.Join(shared, name))
		if st.Uid != 1000 || st.Gid != 2000 {
			t.Errorf("%s in a setgid directory belongs to %d:%d", name, st.Uid, st.Gid)
		}
		if dir := st.Mode&unix.S_IFMT == unix.S_IFDIR; dir != (st.Mode&unix.S_ISGID != 0) {
			t.Errorf("%s in a setgid directory has mode %o", name, st.Mode)
		}
	}
}

func TestPermissionsHoldThoughOpenIsNeverSent(t *testing.T) {
	m := openToAll(t)
	dir := filepath.Join(m.Dir, "dir")
	if err := as(t, 1000, 1000, nil, "mkdir -m 755 "+dir+" && cd "+dir+" && echo x > private && chmod 600 private && echo x > mine && chmod 444 mine && echo x > none && chmod 0 none && echo x > group && chmod 640 group"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "group"), 1000, 3000); err != nil {
		t.Fatal(err)
	}
	for command, allowed := range map[string]bool{
		"cat private":        false,
		"echo y >> private":  false,
		"echo y > new":       false,
		"rm -f mine":         false,
		"cat mine":           true,
		"cat group":          false,
		"chmod 777 private":  false,
		"mv mine other":      false,
		"ln private linked":  false,
		"touch -d @1 mine":   false,
		"truncate -s 0 mine": false,
	} {
		if err := as(t, 1002, 1002, nil, "cd "+dir+" && "+command); (err == nil) != allowed {
			t.Errorf("another user, %q: %v, allowed is %v", command, err, allowed)
		}
	}
	if err := as(t, 1002, 1002, []uint32{3000}, "cat "+dir+"/group"); err != nil {
		t.Errorf("a supplementary group does not count: %v", err)
	}
	for command, allowed := range map[string]bool{
		"echo y >> mine": false,
		"cat none*":      false,
		"cat mine":       true,
		"mv none none2":  true,
	} {
		if err := as(t, 1000, 1000, nil, "cd "+dir+" && "+command); (err == nil) != allowed {
			t.Errorf("the owner, %q: %v, allowed is %v", command, err, allowed)
		}
	}
}

func TestSuidAndSgidGoWhenOthersWrite(t *testing.T) {
	m := openToAll(t)
	plain := t.TempDir()
	if err := os.Chmod(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	// modeAfter is the mode of the file in dir after a command of somebody else's.
	modeAfter := func(dir, command string, groups []uint32, mode uint32) uint16 {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte("program"), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := unix.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := as(t, 1000, 1000, groups, command+path); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		// Who asks for the mode alone gets it from the kernel's cache first.
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_MODE, &st); err != nil {
			t.Fatal(err)
		}
		return st.Mode & 0o7777
	}
	for _, command := range []string{
		"echo more >>", "echo new >", "truncate -s 1 ", "fallocate -l 8192 ", "fallocate --punch-hole -l 4096 ",
		"dd if=/dev/zero bs=4096 count=1 conv=notrunc oflag=direct status=none of=",
	} {
		for _, mode := range []uint32{0o6777, 0o6666, 0o2666} {
			for _, groups := range [][]uint32{nil, {4711, 0}} {
				got, want := modeAfter(m.Dir, command, groups, mode), modeAfter(plain, command, groups, mode)
				if got != want {
					t.Errorf("%q in groups %v makes %o of %o, on a local file system %o", command, groups, got, mode, want)
				}
			}
		}
	}
	for _, mode := range []uint32{0o6777, 0o6666, 0o2666} {
		var after [2]uint32
		for i, dir := range []string{m.Dir, plain} {
			path := filepath.Join(dir, "file")
			if err := os.Chown(path, 0, 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(path, 1000, 1000); err != nil {
				t.Fatal(err)
			}
			after[i] = stat(t, path).Mode & 0o7777
		}
		if after[0] != after[1] {
			t.Errorf("chown makes %o of %o, on a local file system %o", after[0], mode, after[1])
		}
	}
}

func TestInStickyDirectoriesOnlyOwnersRemoveAndRename(t *testing.T) {
	m := openToAll(t) // its root is sticky
	if err := as(t, 1000, 1000, nil, "cd "+m.Dir+" && echo x > file && mkdir dir sticky && chmod 1777 sticky && echo x > sticky/file"); err != nil {
		t.Fatal(err)
	}
	if err := as(t, 1002, 1002, nil, "cd "+m.Dir+" && echo x > sticky/guest && echo x > guest"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		uid     uint32
		command string
		allowed bool
	}{
		{1002, "rm -f file", false},
		{1002, "rmdir dir", false},
		{1002, "mv file other", false},
		{1002, "mv guest file", false}, // over a file of another's
		{1002, "rm -f sticky/file", false},
		{1002, "mv sticky/guest sticky/guest2", true},
		{1000, "rm -f guest", false},
		{1000, "rm -f sticky/guest2", true}, // the directory is his
		{1000, "mv file sticky/file", true},
		{1000, "rmdir dir", true},
		{1002, "rm -f guest", true},
	} {
		if err := as(t, c.uid, c.uid, nil, "cd "+m.Dir+" && "+c.command); (err == nil) != c.allowed {
			t.Errorf("user %d, %q: %v, allowed is %v", c.uid, c.command, err, c.allowed)
		}
	}
}
