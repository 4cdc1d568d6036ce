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
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// countingKMS counts the calls to a KMS, and can make them take a while.
type countingKMS struct {
	kmsprovider.Provider
	delay time.Duration

	mu          sync.Mutex
	calls       map[string]int
	under, peak int
}

// countCalls puts a countingKMS in front of the volume's KMS.
func (m *mounted) countCalls(delay time.Duration) *countingKMS {
	m.t.Helper()
	p, err := m.keys.Provider(context.Background(), "local")
	if err != nil {
		m.t.Fatal(err)
	}
	k := &countingKMS{Provider: p, delay: delay, calls: make(map[string]int)}
	m.keys = kmsprovider.NewRegistry()
	m.keys.Register("local", func(context.Context) (kmsprovider.Provider, error) { return k, nil })
	return k
}

func (k *countingKMS) begin(op string) func() {
	k.mu.Lock()
	k.calls[op]++
	k.under++
	k.peak = max(k.peak, k.under)
	k.mu.Unlock()
	time.Sleep(k.delay)
	return func() {
		k.mu.Lock()
		k.under--
		k.mu.Unlock()
	}
}

func (k *countingKMS) GenerateDataKey(ctx context.Context, keyID string, ec kmsprovider.Context) ([]byte, []byte, error) {
	defer k.begin("GenerateDataKey")()
	return k.Provider.GenerateDataKey(ctx, keyID, ec)
}

func (k *countingKMS) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	defer k.begin("Decrypt")()
	return k.Provider.Decrypt(ctx, keyID, wrapped, ec)
}

func (k *countingKMS) Encrypt(ctx context.Context, keyID string, plaintext []byte, ec kmsprovider.Context) ([]byte, error) {
	defer k.begin("Encrypt")()
	return k.Provider.Encrypt(ctx, keyID, plaintext, ec)
}

func (k *countingKMS) DescribeKey(ctx context.Context, keyID string) (kmsprovider.KeyInfo, error) {
	defer k.begin("DescribeKey")()
	return k.Provider.DescribeKey(ctx, keyID)
}

// of returns the calls that a function caused, also those that came after it.
func (k *countingKMS) of(m *mounted, call func()) map[string]int {
	before := k.snapshot()
	call()
	if m.Mount != nil {
		m.settle()
	}
	for { // until none is under way and none has come for a while
		k.mu.Lock()
		under, last := k.under, maps.Clone(k.calls)
		k.mu.Unlock()
		time.Sleep(20*time.Millisecond + 2*k.delay)
		if under == 0 && maps.Equal(last, k.snapshot()) {
			break
		}
	}
	diff := k.snapshot()
	for op, n := range before {
		if diff[op] -= n; diff[op] == 0 {
			delete(diff, op)
		}
	}
	return diff
}

func (k *countingKMS) snapshot() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.calls)
}

func (k *countingKMS) want(m *mounted, what string, want map[string]int, call func()) {
	m.t.Helper()
	if got := k.of(m, call); !maps.Equal(got, want) {
		m.t.Errorf("%s: KMS calls %v, want %v", what, got, want)
	} else {
		m.t.Logf("%-32s %v", what, got)
	}
}

// run runs a program in the mount and throws its output away. Not into
// /dev/null, to which tar does not write what it would have to read.
func (m *mounted) run(name string, args ...string) {
	m.t.Helper()
	c := exec.Command(name, args...)
	c.Dir = m.Dir
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

func checkCalls(t *testing.T, m *mounted, k *countingKMS, perFile bool) {
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
	})
	k.want(m, "unmount", nothing, m.unmount)
	want := nothing
	unused := v.KeysAhead().PoolUnused
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
	k.want(m, "cold read of one file", calls(one), func() { m.run("cat", "0/0") })
	k.mu.Lock()
	k.peak = 0
	k.mu.Unlock()
	k.want(m, "tar c, cold", calls(one*(files-1)), func() { m.run("tar", "-cf", "-", ".") })
	k.want(m, "tar c, warm", nothing, func() { m.run("tar", "-cf", "-", ".") })
	if k.delay > 0 && perFile && k.peak < 3 {
		t.Errorf("at most %d calls were under way at once", k.peak)
	}
	if ahead := m.Volume.KeysAhead(); ahead.ReadInVain != 0 {
		t.Errorf("%d keys were unwrapped in vain", ahead.ReadInVain)
	}
	k.want(m, "unmount, having read", nothing, m.unmount)
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
