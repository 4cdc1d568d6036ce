package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
	// A cached write is refused when its pages are sent; the kernel goes by its
	// own size until then, and until it forgets the file.
	if _, err := f.WriteAt([]byte("beyond"), crypto.MaxFileSize); err != nil {
		t.Errorf("a cached write: %v", err)
	}
	if err := f.Sync(); !errors.Is(err, unix.EFBIG) {
		t.Errorf("fsync: %v, want EFBIG", err)
	}
	m.unmountKeeping(f)
	m.mount(func(o *fs.Options) { o.NoWriteback = true })
	if f, err = os.OpenFile(f.Name(), os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("beyond"), crypto.MaxFileSize); !errors.Is(err, unix.EFBIG) {
		t.Errorf("write: %v, want EFBIG", err)
	}
	if st := stat(t, f.Name()); st.Size != 0 {
		t.Errorf("the size is %d after nothing was written", st.Size)
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

func TestRangesAreCopiedBetweenFiles(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	from, err := os.Create(filepath.Join(m.Dir, "from"))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(m.Dir, "to"))
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	want := bytes.Repeat([]byte("content "), 20_000)
	if _, err := from.Write(want); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < int64(len(want)); {
		in, out := off, off
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, len(want)-int(off), 0)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		off += int64(n)
	}
	if got, err := os.ReadFile(to.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v, that differ", len(got), err)
	}
	// Blocks cannot be shared between files.
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != unix.EOPNOTSUPP && err != unix.ENOTTY {
		t.Errorf("clone: %v", err)
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
