package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

func TestNamesAreAnyBytesUpTo255(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	var names []string
	for c := range 256 {
		if c == 0 || c == '/' {
			continue
		}
		if c != '.' {
			names = append(names, string([]byte{byte(c)}))
		}
		names = append(names, "odd "+string([]byte{byte(c), 0xff, byte(c)}))
	}
	for n := 2; n <= 255; n++ {
		names = append(names, strings.Repeat("n", n))
	}
	names = append(names, strings.Repeat("\xff", 255), strings.Repeat("é", 127)+"e", "...", ". ")
	for i, name := range names {
		path := filepath.Join(m.Dir) + "/" + name
		var err error
		if i%8 == 0 {
			err = os.Mkdir(path, 0o755)
		} else {
			err = unix.Mknod(path, unix.S_IFREG|0o644, 0)
		}
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
	}
	for _, c := range []struct {
		name string
		err  error
	}{
		{strings.Repeat("n", 256), unix.ENAMETOOLONG}, {strings.Repeat("\xff", 300), unix.ENAMETOOLONG}, {"n" + strings.Repeat("é", 127), unix.EEXIST},
	} {
		path := m.Dir + "/" + c.name
		if c.err == unix.EEXIST {
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			names = append(names, c.name)
		}
		for what, err := range map[string]error{
			"mknod": unix.Mknod(path, unix.S_IFREG|0o644, 0), "mkdir": unix.Mkdir(path, 0o755), "symlink": unix.Symlink("x", path),
			"link": unix.Link(m.Dir+"/nn", path),
		} {
			if err != c.err {
				t.Errorf("%s of a name of %d bytes: %v, want %v", what, len(c.name), err, c.err)
			}
		}
	}
	slices.Sort(names)
	for range 2 {
		d, err := os.Open(m.Dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Readdirnames(-1)
		d.Close()
		slices.Sort(got)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("%d names, %v, want %d; or others", len(got), err, len(names))
		}
		for _, name := range names {
			if err := unix.Access(m.Dir+"/"+name, unix.F_OK); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		m.unmount()
		m.mount()
	}
}

func TestSymlinkTargetsAreAnyBytesUpTo4095(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	plain := t.TempDir()
	targets := map[string]string{}
	for _, n := range []int{1, 59, 60, 255, 256, 3030, 3031, 3032, 4094, 4095} {
		targets[fmt.Sprint(n)] = strings.Repeat("\xfe/t", n)[:n]
	}
	targets["absolute"], targets["dots"], targets["trailing"] = "/etc/../etc", "../../..", "dir/"
	for name, target := range targets {
		if err := os.Symlink(target, filepath.Join(m.Dir, name)); err != nil {
			t.Fatalf("%d bytes: %v", len(target), err)
		}
	}
	for _, target := range []string{strings.Repeat("t", 4096), ""} {
		got, want := unix.Symlink(target, m.Dir+"/none"), unix.Symlink(target, plain+"/none")
		if got != want || got == nil {
			t.Errorf("a target of %d bytes: %v, on a local file system %v", len(target), got, want)
		}
	}
	for range 2 {
		for name, want := range targets {
			path := filepath.Join(m.Dir, name)
			got, err := os.Readlink(path)
			if st := stat(t, path); err != nil || got != want || st.Size != int64(len(want)) {
				t.Errorf("%s: %d bytes, %v, size %d", name, len(got), err, st.Size)
			}
		}
		m.unmount()
		m.mount()
	}
}

func TestSpecialFilesAreOfTheirKindAndNumber(t *testing.T) {
	needRoot(t, "devices are for root to make")
	m := newVolume(t, volume.ModeVolume)
	dev := func(o *fs.Options) { o.KernelOptions = []string{"dev"} }
	m.mount(dev)
	plain := t.TempDir()
	special := map[string]struct {
		mode uint32
		dev  uint64
	}{
		"fifo":    {unix.S_IFIFO | 0o620, 0},
		"socket":  {unix.S_IFSOCK | 0o755, 0},
		"null":    {unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)},
		"block":   {unix.S_IFBLK | 0o640, unix.Mkdev(259, 70000)},
		"char":    {unix.S_IFCHR | 0o4711, unix.Mkdev(4095, 1<<20-1)},
		"regular": {unix.S_IFREG | 0o604, 0},
		"file":    {0o604, 0}, // 0 is a regular file
	}
	for name, s := range special {
		for _, dir := range []string{m.Dir, plain} {
			if err := unix.Mknod(filepath.Join(dir, name), s.mode, int(s.dev)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := unix.Mknod(filepath.Join(dir, name), s.mode, int(s.dev)); err != unix.EEXIST {
				t.Errorf("%s, which is there: %v", name, err)
			}
		}
	}
	for range 2 {
		for name := range special {
			got, want := stat(t, filepath.Join(m.Dir, name)), stat(t, filepath.Join(plain, name))
			if got.Mode != want.Mode || got.Rdev != want.Rdev || got.Size != want.Size || got.Nlink != want.Nlink {
				t.Errorf("%s: mode %o, device %x, size %d; on a local file system %o, %x, %d",
					name, got.Mode, got.Rdev, got.Size, want.Mode, want.Rdev, want.Size)
			}
		}
		m.unmount()
		m.mount(dev)
	}
	// They work: a device is the kernel's, a FIFO and a socket bring bytes across.
	null, err := os.OpenFile(filepath.Join(m.Dir, "null"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := null.WriteString("gone"); n != 4 || err != nil {
		t.Errorf("write to null: %d, %v", n, err)
	}
	null.Close()
	fifo, err := os.OpenFile(filepath.Join(m.Dir, "fifo"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 7)
	_, werr := fifo.WriteString("through")
	if n, err := fifo.Read(b); werr != nil || err != nil || string(b[:n]) != "through" {
		t.Errorf("through the FIFO: %v, %q, %v", werr, b[:n], err)
	}
	fifo.Close()
	dir, err := os.Open(m.Dir) // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	socket := fmt.Sprintf("/proc/self/fd/%d/listening", dir.Fd())
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Errorf("connect to a socket: %v", err)
	} else {
		c.Close()
	}
	l.Close()
	if err := os.Rename(filepath.Join(m.Dir, "null"), filepath.Join(m.Dir, "renamed")); err != nil {
		t.Error(err)
	}
	if st := stat(t, filepath.Join(m.Dir, "renamed")); st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("after a rename it is device %x", st.Rdev)
	}
}

func TestStatfsShowsTheSpaceOfTheBackingStore(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	path := filepath.Join(m.Dir, "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{m.Dir, path} {
		var got, want unix.Statfs_t
		if err := errors.Join(unix.Statfs(p, &got), unix.Statfs(m.Backing, &want)); err != nil {
			t.Fatal(err)
		}
		if got.Bsize != want.Bsize || got.Frsize != want.Frsize || got.Blocks != want.Blocks || got.Files != want.Files {
			t.Errorf("%+v, the backing store's is %+v", got, want)
		}
		// Others use the disk meanwhile.
		if got.Bfree == 0 || got.Bfree > got.Blocks || got.Bavail > got.Bfree || got.Ffree > got.Files {
			t.Errorf("%+v", got)
		}
		if got.Namelen != volume.MaxName || got.Type != unix.FUSE_SUPER_MAGIC {
			t.Errorf("names of %d bytes, type %x", got.Namelen, got.Type)
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
