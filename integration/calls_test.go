package integration

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/slow"
	"kmsfs/volume"
)

// countedKMS counts the calls to a volume's KMS, and makes them take a while.
type countedKMS struct {
	*slow.Provider
	delay time.Duration
}

// countCalls puts a countedKMS in front of the volume's KMS.
func (m *mounted) countCalls(delay time.Duration) *countedKMS {
	m.t.Helper()
	p, err := m.keys.Provider(context.Background(), "local")
	if err != nil {
		m.t.Fatal(err)
	}
	k := &countedKMS{slow.New(p, delay), delay}
	m.keys = kmsprovider.NewRegistry()
	m.keys.Register("local", func(context.Context) (kmsprovider.Provider, error) { return k, nil })
	return k
}

// of returns the calls that a function caused, also those that came after it.
func (k *countedKMS) of(m *mounted, call func()) map[string]int {
	before := k.Calls()
	call()
	if m.Mount != nil {
		m.settle()
	}
	for { // until none is under way and none has come for a while
		under, last := k.UnderWay(), k.Calls()
		time.Sleep(20*time.Millisecond + 2*k.delay)
		if under == 0 && maps.Equal(last, k.Calls()) {
			break
		}
	}
	diff := k.Calls()
	for op, n := range before {
		if diff[op] -= n; diff[op] == 0 {
			delete(diff, op)
		}
	}
	return diff
}

func (k *countedKMS) want(m *mounted, what string, want map[string]int, call func()) {
	m.t.Helper()
	if got := k.of(m, call); !maps.Equal(got, want) {
		m.t.Errorf("%s: KMS calls %v, want %v", what, got, want)
	} else {
		m.t.Logf("%-32s %v", what, got)
	}
}

// run runs a program in the mount and throws its output away. Not into
// /dev/null, to which tar does not write what it would have to read. env changes
// directory: where exec does, the mount's own process is half stopped meanwhile,
// and may not answer.
func (m *mounted) run(name string, args ...string) {
	m.t.Helper()
	c := exec.Command("env", append([]string{"-C", m.Dir, name}, args...)...)
	c.Stdout = struct{ io.Writer }{io.Discard}
	if err := c.Run(); err != nil {
		m.t.Fatalf("%s %v: %v", name, args, err)
	}
}

func TestKMSCallsOfAMountAreThoseOfTheDesign(t *testing.T) {
	for _, c := range []struct {
		mode  volume.KeyMode
		delay time.Duration
	}{{volume.ModeFile, 0}, {volume.ModeFile, 5 * time.Millisecond}, {volume.ModeVolume, 5 * time.Millisecond}} {
		t.Run(fmt.Sprintf("key mode %s, %v a call", c.mode, c.delay), func(t *testing.T) {
			m := newVolume(t, c.mode)
			checkCalls(t, m, m.countCalls(c.delay), c.mode == volume.ModeFile)
		})
	}
}

func checkCalls(t *testing.T, m *mounted, k *countedKMS, perFile bool) {
	const dirs, each = 20, 15
	files := dirs * each
	nothing := map[string]int{}
	k.want(m, "mount", map[string]int{"Decrypt": 1}, func() { m.mount() })

	v := m.Volume
	got := k.of(m, func() {
		for d := range dirs {
			dir := filepath.Join(m.Dir, fmt.Sprint(d))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for f := range each {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(f)), []byte("content"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		// Between two calls for keys made ahead a file is written, to a disk that may be busy.
		for before := -1; before != v.Stats().PooledKeys; time.Sleep(200 * time.Millisecond) {
			before = v.Stats().PooledKeys
		}
	})
	k.want(m, "unmount", nothing, m.unmount)
	want := nothing
	unused := v.Stats().Discarded
	if perFile {
		want = map[string]int{"GenerateDataKey": files + unused}
	}
	const pool = 256
	if !maps.Equal(got, want) || perFile && unused > pool {
		t.Errorf("create of %d files, %d keys unused: KMS calls %v, want %v", files, unused, got, want)
	}
	if on := countFiles(t, filepath.Join(m.Backing, ".kmsfs", "keys")); on != files {
		t.Errorf("%d sidecars for %d files", on, files)
	}

	k.want(m, "mount again", map[string]int{"Decrypt": 1}, func() { m.mount() })
	k.want(m, "find, ls -lR, du", nothing, func() {
		m.run("find", ".", "-size", "+1k")
		m.run("ls", "-lR")
		m.run("du", "-s")
	})
	k.want(m, "everything but contents", nothing, func() { changeNames(t, m.Dir) })
	one := 0
	if perFile {
		one = 1
	}
	release := m.hold()
	k.want(m, "cold read of one file", calls(one), func() { m.run("cat", "0/0") })
	k.Peak()
	k.want(m, "tar c, cold", calls(one*(files-1)), func() { m.run("tar", "-cf", "-", ".") })
	k.want(m, "tar c, warm", nothing, func() { m.run("tar", "-cf", "-", ".") })
	if peak := k.Peak(); k.delay > 0 && perFile && peak < 3 {
		t.Errorf("at most %d calls were under way at once", peak)
	}
	if s := m.Volume.Stats(); s.InVain != 0 {
		t.Errorf("%d keys were unwrapped in vain", s.InVain)
	}
	release()
	k.want(m, "unmount, having read", nothing, m.unmount)
}

// hold keeps the kernel from forgetting what is in the mount, when caches are
// dropped or memory is short: with a file its key is forgotten. That reads nothing.
func (m *mounted) hold() (release func()) {
	m.t.Helper()
	var held []int
	err := filepath.WalkDir(m.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		held = append(held, fd)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}
}

func calls(decrypts int) map[string]int {
	if decrypts == 0 {
		return map[string]int{}
	}
	return map[string]int{"Decrypt": decrypts}
}

// changeNames does to each file what needs none of its content.
func changeNames(t *testing.T, dir string) {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		for _, err := range []error{
			os.Chmod(path, 0o600),
			os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)),
			unix.Setxattr(path, "user.a", []byte("value"), 0),
			os.Rename(path, path+"~"),
			os.Rename(path+"~", path),
			os.Link(path, path+"+"),
			os.Remove(path + "+"),
		} {
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
		}
	}
}
