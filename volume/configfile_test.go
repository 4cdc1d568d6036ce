package volume

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// brittle is the system until its count of calls runs out: then one call fails,
// or that one and all after it, as if the process had died.
type brittle struct {
	System
	left  int
	forth bool // everything fails from then on
}

func (k *brittle) fails() bool {
	k.left--
	return k.left == -1 || k.forth && k.left < 0
}

func (k *brittle) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if k.fails() {
		return -1, unix.EIO
	}
	return k.System.Openat(dirfd, name, flags, mode)
}

func (k *brittle) Pwrite(fd int, b []byte, off int64) (int, error) {
	if k.fails() {
		// What was written before it failed stays.
		_, _ = k.System.Pwrite(fd, b[:len(b)/2], off)
		return 0, unix.EIO
	}
	return k.System.Pwrite(fd, b, off)
}

func (k *brittle) Pread(fd int, b []byte, off int64) (int, error) {
	if k.fails() {
		return 0, unix.EIO
	}
	return k.System.Pread(fd, b, off)
}

func (k *brittle) Fsync(fd int) error {
	if k.fails() {
		return unix.EIO
	}
	return k.System.Fsync(fd)
}

func (k *brittle) Unlinkat(dirfd int, name string, flags int) error {
	if k.fails() {
		return unix.EIO
	}
	return k.System.Unlinkat(dirfd, name, flags)
}

func (k *brittle) Mkdirat(dirfd int, name string, mode uint32) error {
	if k.fails() {
		return unix.EIO
	}
	return k.System.Mkdirat(dirfd, name, mode)
}

func (k *brittle) Renameat2(olddir int, oldname string, newdir int, newname string, flags uint) error {
	if k.fails() {
		return unix.EIO
	}
	return k.System.Renameat2(olddir, oldname, newdir, newname, flags)
}

// openDir gives a descriptor of dir for as long as the test runs.
func openDir(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// metaPlace is a backing directory with nothing but .kmsfs in it.
func metaPlace(t testing.TB) (dir string, root, meta int) {
	t.Helper()
	dir = t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, metaDir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir, openDir(t, dir), openDir(t, filepath.Join(dir, metaDir))
}

// generations are two configurations that follow each other, and their bytes.
func generations(t testing.TB) (old *Config, oldBytes, newBytes []byte) {
	old = sampleConfig()
	oldBytes = must(old.marshal(volumeKeyOf(1)))(t)
	next := sampleConfig()
	next.Generation++
	return old, oldBytes, must(next.marshal(volumeKeyOf(1)))(t)
}

func readFile(t testing.TB, path ...string) []byte {
	t.Helper()
	return must(os.ReadFile(filepath.Join(path...)))(t)
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheConfigurationIsReplacedAndItsPreviousVersionKept(t *testing.T) {
	dir, root, meta := metaPlace(t)
	old, oldBytes, newBytes := generations(t)
	if err := writeConfig(System{}, meta, nil, oldBytes); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, metaDir, configBackup)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a previous version of the first one: %v", err)
	}
	if err := writeConfig(System{}, meta, old, newBytes); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, dir, metaDir, configName), newBytes) || !bytes.Equal(readFile(t, dir, metaDir, configBackup), oldBytes) {
		t.Error("volume.json is not the new one, or its backup not the old one")
	}
	if c := must(readConfig(System{}, root))(t); c.Generation != old.Generation+1 {
		t.Errorf("read generation %d", c.Generation)
	}
	for _, name := range []string{configName, configBackup} {
		if st := must(os.Lstat(filepath.Join(dir, metaDir, name)))(t); st.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if entries := must(os.ReadDir(filepath.Join(dir, metaDir)))(t); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAConfigurationThatSomebodyElseChangedIsNotOverwritten(t *testing.T) {
	dir, _, meta := metaPlace(t)
	old, oldBytes, newBytes := generations(t)
	path := filepath.Join(dir, metaDir, configName)
	if err := writeConfig(System{}, meta, old, newBytes); !errors.Is(err, errConfigChanged) {
		t.Errorf("gone meanwhile: %v", err)
	}
	writeFile(t, path, newBytes)
	for _, read := range []*Config{old, nil} {
		if err := writeConfig(System{}, meta, read, oldBytes); !errors.Is(err, errConfigChanged) {
			t.Errorf("changed meanwhile: %v", err)
		}
	}
	if !bytes.Equal(readFile(t, path), newBytes) {
		t.Error("overwritten")
	}
}

func TestOfSeveralThatChangeTheConfigurationOneSucceeds(t *testing.T) {
	dir, _, _ := metaPlace(t)
	old, oldBytes, newBytes := generations(t)
	writeFile(t, filepath.Join(dir, metaDir, configName), oldBytes)
	errs := make([]error, 8)
	var all sync.WaitGroup
	for i := range errs {
		fd := openDir(t, filepath.Join(dir, metaDir))
		all.Go(func() { errs[i] = writeConfig(System{}, fd, old, newBytes) })
	}
	all.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, errConfigChanged):
			t.Error(err)
		}
	}
	if won != 1 || !bytes.Equal(readFile(t, dir, metaDir, configName), newBytes) || !bytes.Equal(readFile(t, dir, metaDir, configBackup), oldBytes) {
		t.Errorf("%d succeeded", won)
	}
}

func TestAWriteThatFailsAnywhereLeavesTheOldConfigurationOrTheNewOne(t *testing.T) {
	old, oldBytes, newBytes := generations(t)
	for _, forth := range []bool{false, true} {
		dir, _, meta := metaPlace(t)
		path := filepath.Join(dir, metaDir, configName)
		for n := 0; ; n++ {
			if n > 100 {
				t.Fatal("never succeeds")
			}
			writeFile(t, path, oldBytes)
			err := writeConfig(&brittle{left: n, forth: forth}, meta, old, newBytes)
			now := readFile(t, path)
			if err == nil {
				if n < 10 || !bytes.Equal(now, newBytes) {
					t.Errorf("succeeds after %d calls with %s", n, now)
				}
				break
			}
			if !bytes.Equal(now, oldBytes) && !bytes.Equal(now, newBytes) {
				t.Errorf("failing at call %d (%v) leaves %q", n, err, now)
			}
			if b, err := os.ReadFile(filepath.Join(dir, metaDir, configBackup)); err == nil && !bytes.Equal(b, oldBytes) {
				t.Errorf("failing at call %d leaves a backup of %q", n, b)
			}
			if _, err := os.Lstat(path + ".tmp"); err == nil && !forth {
				t.Errorf("failing at call %d leaves the temporary", n)
			}
		}
	}
}

func TestNoVolumeJSONIsNoVolume(t *testing.T) {
	empty := t.TempDir()
	noConfig, _, _ := metaPlace(t)
	file := t.TempDir()
	writeFile(t, filepath.Join(file, metaDir), nil)
	for what, dir := range map[string]string{
		"missing directory": filepath.Join(empty, "missing"), "a file": filepath.Join(file, metaDir), "empty": empty,
		".kmsfs a file": file, "no volume.json": noConfig,
	} {
		_, err := ReadInfo(dir)
		if !errors.Is(err, ErrNotVolume) || !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPlantedFilesInPlaceOfTheConfigurationAreRefused(t *testing.T) {
	good := must(sampleConfig().marshal(volumeKeyOf(1)))(t)
	elsewhere := t.TempDir()
	if err := os.Mkdir(filepath.Join(elsewhere, metaDir), 0o700); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(elsewhere, metaDir, configName)
	writeFile(t, target, good)
	for what, plant := range map[string]func(path string) error{
		"symbolic link":          func(path string) error { return os.Symlink(target, path) },
		"dangling symbolic link": func(path string) error { return os.Symlink("nowhere", path) },
		"directory":              func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":                   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"huge file":              func(path string) error { return os.WriteFile(path, make([]byte, maxConfig+1), 0o600) },
		"empty file":             func(path string) error { return os.WriteFile(path, nil, 0o600) },
	} {
		dir, root, _ := metaPlace(t)
		if err := plant(filepath.Join(dir, metaDir, configName)); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(System{}, root); !errors.Is(err, ErrIntegrity) || errors.Is(err, ErrNotVolume) {
			t.Errorf("%s: %v", what, err)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(elsewhere, metaDir), filepath.Join(dir, metaDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := readConfig(System{}, openDir(t, dir)); !errors.Is(err, ErrIntegrity) || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf(".kmsfs a symbolic link: %v", err)
	}
	// The path to the backing directory is the user's own, and may have links.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(elsewhere, link); err != nil {
		t.Fatal(err)
	}
	if info, err := ReadInfo(link); err != nil || info.Path != must(filepath.EvalSymlinks(elsewhere))(t) {
		t.Errorf("link to the backing directory: %+v, %v", info, err)
	}
}

func TestAWriteNeverGoesThroughAPlantedLink(t *testing.T) {
	old, oldBytes, newBytes := generations(t)
	victim := filepath.Join(t.TempDir(), "victim")
	for _, name := range []string{configName + ".tmp", configBackup, configBackup + ".tmp"} {
		dir, _, meta := metaPlace(t)
		writeFile(t, filepath.Join(dir, metaDir, configName), oldBytes)
		writeFile(t, victim, []byte("mine"))
		if err := os.Symlink(victim, filepath.Join(dir, metaDir, name)); err != nil {
			t.Fatal(err)
		}
		if err := writeConfig(System{}, meta, old, newBytes); err != nil {
			t.Errorf("link at %s: %v", name, err)
		}
		if string(readFile(t, victim)) != "mine" || !bytes.Equal(readFile(t, dir, metaDir, configName), newBytes) {
			t.Errorf("written through the link at %s", name)
		}
	}
	dir, _, meta := metaPlace(t)
	if err := os.Symlink(victim, filepath.Join(dir, metaDir, configName)); err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(System{}, meta, nil, newBytes); err == nil || string(readFile(t, victim)) != "mine" {
		t.Errorf("link in place of %s: %v", configName, err)
	}
}
