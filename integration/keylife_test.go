package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// fileKeys passes on what a provider does, and counts the data keys of files that
// it unwraps. The volume key is asked for now and then, whatever happens.
type fileKeys struct {
	kmsprovider.Provider
	unwrapped *atomic.Int64
}

func (k fileKeys) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	if ec["kmsfs:file"] != "" {
		k.unwrapped.Add(1)
	}
	return k.Provider.Decrypt(ctx, keyID, wrapped, ec)
}

// Close closes the keystore.
func (k fileKeys) Close() error { return k.Provider.(io.Closer).Close() }

// until waits for something that is bound to happen.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v there is still not: %s", patience, what)
		}
	}
}

func TestPagesGoWithTheKeyOfTheirFile(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	for _, mode := range []volume.KeyMode{volume.ModeFile, volume.ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			m := newVolume(t, mode)
			m.keyTTL = 2 * time.Second // longer than a busy machine takes to write
			m.mount()
			content := bytes.Repeat([]byte("plaintext "), 10_000)
			path := filepath.Join(m.Dir, "file")
			// Neither synced nor closed: the pages are the kernel's alone.
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.Write(content); err != nil {
				t.Fatal(err)
			}
			until(t, "no key in memory", func() bool { return m.Volume.Stats().CachedKeys == 0 })
			if got := m.Mount.Counts().Snapshot()["WRITE"]; got == 0 {
				t.Error("the pages were not written back")
			}
			reads, unwrapped := m.Mount.Counts().Snapshot()["READ"], m.unwrapped.Load()
			got := make([]byte, len(content))
			if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
				t.Fatalf("read afterwards: %v, the same: %v", err, bytes.Equal(got, content))
			}
			if m.Mount.Counts().Snapshot()["READ"] == reads {
				t.Error("it was read from the kernel's cache")
			}
			if n := m.unwrapped.Load() - unwrapped; (n > 0) != (mode == volume.ModeFile) {
				t.Errorf("the KMS unwrapped %d keys of files", n)
			}
		})
	}
}

// Files that are written and mapped all the time lose nothing while their keys
// come and go. They are used by another process: this one serves their faults.
func TestFilesInUseLoseNothingWhileTheirKeysExpire(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.keyTTL = 2 * time.Second // several lives of a key, each long enough for a busy KMS
	m.mount()
	const writers = 4
	if out, err := process(t, "churn", m.Dir, strconv.Itoa(writers)).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := m.unwrapped.Load(); n < writers {
		t.Errorf("the KMS unwrapped %d keys of files: no key expired", n)
	}
	m.unmount()
	m.keyTTL = 0
	m.mount()
	for w := range writers {
		got, err := os.ReadFile(filepath.Join(m.Dir, fmt.Sprint("file", w)))
		if err != nil || !bytes.Equal(got, churned(churnRounds-1)) {
			t.Errorf("file %d lost its last round: %v", w, err)
		}
	}
}

const churnRounds, churnSize = 150, 3 * 4096

// churned is what a file holds after round i: some bytes written through a
// mapping, some written inside a block, a whole block.
func churned(i int) []byte {
	b := make([]byte, churnSize)
	copy(b[100:], fmt.Sprintf("%08d", i))
	copy(b[4096+99:], bytes.Repeat([]byte{byte(i)}, 777))
	copy(b[8192:], bytes.Repeat([]byte{byte(i)}, 4096))
	return b
}

func init() {
	processes["churn"] = func(args []string) int {
		writers, _ := strconv.Atoi(args[1])
		var group sync.WaitGroup
		var failed atomic.Bool
		for w := range writers {
			group.Go(func() {
				if err := churn(filepath.Join(args[0], fmt.Sprint("file", w))); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Store(true)
				}
			})
		}
		group.Wait()
		if failed.Load() {
			return 1
		}
		return 0
	}
}

func churn(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(churnSize); err != nil {
		return err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, churnSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(mapped)
	got := make([]byte, churnSize)
	for i := range churnRounds {
		want := churned(i)
		copy(mapped[100:108], want[100:])
		for _, part := range [][2]int{{4096 + 99, 777}, {8192, 4096}} {
			if _, err := f.WriteAt(want[part[0]:][:part[1]], int64(part[0])); err != nil {
				return err
			}
		}
		time.Sleep(30 * time.Millisecond)
		if _, err := f.ReadAt(got, 0); err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s, round %d: what was written is not read", path, i)
		}
	}
	return f.Sync()
}

// Pages for which the KMS gives no key are not written: whoever asks is told.
func TestPagesWithoutAKeyFailAtFsyncAndClose(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	content := bytes.Repeat([]byte("x"), 4096)
	for _, name := range []string{"synced", "closed"} {
		if err := os.WriteFile(filepath.Join(m.Dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.unmount()
	m.mount()
	ctx := context.Background()
	key, err := m.store.DescribeKey(ctx, local.DefaultAlias)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.DisableKey(ctx, key.KeyID); err != nil {
		t.Fatal(err)
	}
	write := func(name string) *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(m.Dir, name), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte("y"), 4096), 0); err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := write("synced")
	if err := f.Sync(); !errors.Is(err, unix.EKEYREVOKED) {
		t.Errorf("fsync: %v, want %v", err, unix.EKEYREVOKED)
	}
	f.Close()
	f = write("closed")
	// The kernel knows two errors at close; the log says which it was.
	if err := f.Close(); !errors.Is(err, unix.EKEYREVOKED) && !errors.Is(err, unix.EIO) {
		t.Errorf("close: %v, want %v or %v", err, unix.EKEYREVOKED, unix.EIO)
	}
	if err := m.store.EnableKey(ctx, key.KeyID); err != nil {
		t.Fatal(err)
	}
	m.unmount()
	m.mount()
	for _, name := range []string{"synced", "closed"} {
		if got, err := os.ReadFile(filepath.Join(m.Dir, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s does not hold what was synced before: %v", name, err)
		}
	}
}
