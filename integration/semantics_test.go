package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/fs"
	"kmsfs/volume"
)

// The tests here hold docs/SEMANTICS.md to what it says.

func TestAFileWithoutANameGetsOneByLinkat(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	open := func() int {
		fd, err := unix.Open(m.Dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	want := bytes.Repeat([]byte("content"), 5000)
	fd := open()
	defer unix.Close(fd)
	if _, err := unix.Write(fd, want); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(m.Dir); err != nil || len(entries) != 0 {
		t.Errorf("before it has a name: %v, %v", entries, err)
	}
	path := filepath.Join(m.Dir, "named")
	if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Pwrite(fd, []byte("CONTENT"), 0); err != nil {
		t.Error(err)
	}
	copy(want, "CONTENT")
	dropped := open() // one that never gets a name leaves nothing
	if _, err := unix.Write(dropped, want); err != nil {
		t.Fatal(err)
	}
	unix.Close(dropped)
	unix.Close(fd)
	m.unmount()
	m.mount()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after remounting: %d bytes, %v", len(got), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := os.Rename(path, path+"2"); err != nil {
		t.Errorf("rename: %v", err)
	}
	m.unmount()
	if n := countFiles(t, filepath.Join(m.Backing, ".kmsfs", "keys")); n != 1 {
		t.Errorf("%d sidecars, want 1", n)
	}
}

func TestASparseFileOfATebibyteTakesNoSpace(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	f, err := os.Create(filepath.Join(m.Dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = int64(1) << 40
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("middle"), size/2); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("end"), size-3); err != nil {
		t.Fatal(err)
	}
	// The pages are still the kernel's when it is asked for data.
	at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	if err != nil || at != size/2 {
		t.Errorf("SEEK_DATA: %d, %v, want %d", at, err, size/2)
	}
	if at, err := unix.Seek(int(f.Fd()), size/2, unix.SEEK_HOLE); err != nil || at <= size/2 || at > size/2+3*4096 {
		t.Errorf("SEEK_HOLE: %d, %v", at, err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d, %d bytes on disk, %v", st.Size, st.Blocks*512, err)
	}
	m.evict(f)
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, size/2); err != nil || string(got) != "middle" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := f.ReadAt(got, size/4); err != nil || !bytes.Equal(got, make([]byte, 6)) {
		t.Errorf("a hole reads %q, %v", got, err)
	}
}

func TestBytesBeyondTheLimitAreRefused(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(crypto.MaxFileSize + 1); !errors.Is(err, unix.EFBIG) {
		t.Errorf("truncate: %v, want EFBIG", err)
	}
	if err := unix.Fallocate(int(f.Fd()), 0, crypto.MaxFileSize, 4096); !errors.Is(err, unix.EFBIG) {
		t.Errorf("fallocate: %v, want EFBIG", err)
	}
	for _, mode := range []uint32{unix.FALLOC_FL_COLLAPSE_RANGE, unix.FALLOC_FL_INSERT_RANGE} {
		if err := unix.Fallocate(int(f.Fd()), mode, 0, 4096); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("fallocate mode %#x: %v, want EOPNOTSUPP", mode, err)
		}
	}
}

func TestPunchedHolesReadAsZerosAndFreeSpace(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte{7}, 2<<20)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		t.Helper()
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		// The kernel asks for the blocks anew after a close.
		if again, err := os.Open(f.Name()); err == nil {
			again.Close()
		}
		return stat(t, f.Name()).Blocks
	}
	before := blocks()
	const from, n = 100_001, 1_500_003
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, n); err != nil {
		t.Fatal(err)
	}
	clear(want[from : from+n])
	if after := blocks(); before-after < 1_300_000/512 {
		t.Errorf("%d blocks before, %d after", before, after)
	}
	m.unmountKeeping(f)
	m.mount()
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("after remounting: %d bytes, %v", len(got), err)
	}
}

// unmountKeeping closes the file, which would keep the mount busy, and unmounts.
func (m *mounted) unmountKeeping(f *os.File) {
	m.t.Helper()
	if err := f.Close(); err != nil {
		m.t.Error(err)
	}
	m.unmount()
}

func TestTheBirthTimeIsShown(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	before := time.Now().Add(-time.Second)
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		t.Fatal(err)
	}
	btime := time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	if st.Mask&unix.STATX_BTIME == 0 || btime.Before(before) || btime.After(time.Now().Add(time.Second)) {
		t.Errorf("mask %#x, birth time %v", st.Mask, btime)
	}
	if st.Mtime.Sec != 1 {
		t.Errorf("mtime %v", st.Mtime)
	}
}

func TestModificationTimesMoveOnlyByWhatUsersDo(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(m.Dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	want := time.Unix(1_000_000_000, 123456789)
	check := func(what string) {
		t.Helper()
		for range 2 {
			st, err := os.Stat(path)
			if err != nil || !st.ModTime().Equal(want) {
				t.Fatalf("after %s: mtime %v, %v, want %v", what, st.ModTime(), err, want)
			}
			m.unmount()
			m.mount()
		}
	}
	if err := os.Chtimes(path, want, want); err != nil {
		t.Fatal(err)
	}
	check("utimensat")
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	check("a read")
	moved := filepath.Join(m.Dir, "dir", "moved")
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	path = moved
	check("a rename")
	if err := os.Link(path, path+"2"); err != nil {
		t.Fatal(err)
	}
	check("a link")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	check("chmod")
	before := time.Now().Add(-time.Second)
	if err := os.WriteFile(path, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.ModTime().Before(before) {
		t.Fatalf("after a write: mtime %v, %v", st.ModTime(), err)
	}
	want = st.ModTime()
	check("a write")
}

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
	for dir := m.Dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.mount(func(o *fs.Options) {
		o.AllowOther = true
		o.KernelOptions = []string{"suid"}
	})
	if err := os.Chmod(m.Dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	return m
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

func TestAWhiteoutStandsWhereAMovedEntryWas(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	long := strings.Repeat("n", 255)
	for _, c := range []struct{ from, to string }{
		{"file", "new"}, {"file", "oldfile"}, {long, "new"}, {"dir", "newdir"}, {"dir", "olddir"},
	} {
		at := func(name string) string { return filepath.Join(m.Dir, name) }
		if c.from == "dir" {
			run(t, "mkdir", "-p", at("dir"), at("olddir"))
		} else {
			run(t, "touch", at(c.from), at("oldfile"))
		}
		moved := stat(t, at(c.from)).Ino
		err := unix.Renameat2(unix.AT_FDCWD, at(c.from), unix.AT_FDCWD, at(c.to), unix.RENAME_WHITEOUT)
		if err == unix.EINVAL {
			t.Skip("no whiteouts here; a temporary directory on ext4, xfs or tmpfs runs this")
		}
		if err != nil {
			t.Fatalf("%.9q to %.9q: %v", c.from, c.to, err)
		}
		for range 2 { // also after another mount
			if st := stat(t, at(c.from)); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
				t.Errorf("%.9q to %.9q leaves mode %o, device %x", c.from, c.to, st.Mode, st.Rdev)
			}
			if st := stat(t, at(c.to)); st.Ino != moved {
				t.Errorf("%.9q is inode %d, want %d", c.to, st.Ino, moved)
			}
			entries, err := os.ReadDir(m.Dir)
			if err != nil || !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == c.from }) {
				t.Errorf("the directory lists %.999q, %v, without %.9q", entries, err, c.from)
			}
			m.unmount()
			m.mount()
		}
		run(t, "rm", "-r", at(c.from), at(c.to))
	}
}

func TestFileHandlesAreNotGiven(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	if major < 6 || major == 6 && minor < 9 {
		t.Skip("this kernel gives them unasked; Linux 6.9 or later runs this")
	}
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0); err != unix.EOPNOTSUPP {
		t.Errorf("name_to_handle_at: %v", err)
	}
}

func TestDataWrittenByAnotherIsNoHole(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := bytes.Repeat([]byte{9}, 300_000)
	if err := w.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(want, 400_000); err != nil {
		t.Fatal(err)
	}
	run(t, "cp", "--sparse=auto", path, path+"2")
	got, err := os.ReadFile(path + "2")
	if err != nil || len(got) != 1<<20 || !bytes.Equal(got[400_000:700_000], want) {
		t.Errorf("the copy of a file that is being written: %d bytes, %v, that differ", len(got), err)
	}
}

func TestASeekFindsHolesSmallerThanPages(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte{9}, 3*4096)); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 2 * 4096} { // too small for the backing store to free a page
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, 4096)
		if err == unix.EOPNOTSUPP {
			t.Skip("no holes here; a temporary directory on ext4, xfs, btrfs or tmpfs runs this")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		whence   int
		at, want int64
	}{
		{unix.SEEK_HOLE, 0, 0}, {unix.SEEK_HOLE, 1, 1}, {unix.SEEK_HOLE, 4095, 4095}, {unix.SEEK_HOLE, 4096, 2 * 4096},
		{unix.SEEK_DATA, 0, 4096}, {unix.SEEK_DATA, 4095, 4096}, {unix.SEEK_DATA, 5000, 5000},
		{unix.SEEK_HOLE, 2*4096 + 1, 2*4096 + 1},
	} {
		if got, err := unix.Seek(int(f.Fd()), c.at, c.whence); err != nil || got != c.want {
			t.Errorf("whence %d from %d: %d, %v; want %d", c.whence, c.at, got, err, c.want)
		}
	}
}

func TestAReadOnlyMountChangesNothing(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	m.readOnly = true
	m.mount()
	if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
	for what, err := range map[string]error{
		"write":  os.WriteFile(path, []byte("x"), 0o644),
		"create": os.WriteFile(path+"2", nil, 0o644),
		"mkdir":  os.Mkdir(path+"3", 0o755),
		"unlink": os.Remove(path),
		"rename": os.Rename(path, path+"4"),
		"chmod":  os.Chmod(path, 0o600),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", what, err)
		}
	}
}

func TestAReadOnlyBackingStoreIsMountedReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a read-only mount of the backing directory needs root, who runs this")
	}
	d := newDaemon(t)
	d.start()
	path := filepath.Join(d.Dir, "file")
	if err := os.WriteFile(path, []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	d.stop()
	if err := unix.Mount(d.Backing, d.Backing, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		d.kill()
		if err := unix.Unmount(d.Backing, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mount("", d.Backing, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	d.start()
	if got, err := os.ReadFile(path); err != nil || string(got) != "content" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
	d.stop()
}
