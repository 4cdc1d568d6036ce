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
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// line is what scribbler w writes at a time, numbered: a little, or so much that a
// single call takes a while.
func line(w, i int) []byte {
	b := make([]byte, 700)
	if w%2 == 1 {
		b = make([]byte, 8<<20)
	}
	copy(b, fmt.Sprintf("%0700d", i))
	copy(b[len(b)-8:], fmt.Sprintf("%08d", i))
	return b
}

func init() {
	// scribble DIR N: writes N files until it is refused, and prints of each how many
	// lines were written and the error. Every third is synced now and then.
	processes["scribble"] = func(args []string) int {
		n, _ := strconv.Atoi(args[1])
		var group sync.WaitGroup
		var out sync.Mutex
		for w := range n {
			group.Go(func() {
				f, err := os.Create(filepath.Join(args[0], fmt.Sprint("scribble", w)))
				lines := 0
				for ; err == nil; lines++ {
					if _, err = f.Write(line(w, lines)); err != nil {
						break
					}
					if w%3 == 0 && lines%100 == 0 {
						if err = f.Sync(); err != nil {
							lines++ // it was written, and only not synced
							break
						}
					}
				}
				var errno unix.Errno
				errors.As(err, &errno)
				out.Lock()
				fmt.Println(w, lines, int(errno))
				out.Unlock()
			})
		}
		group.Wait()
		return 0
	}
}

func TestALockLosesNothingOfWritersThatRaceWithIt(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	modes := map[string]func(*fs.Options){
		"writeback": func(*fs.Options) {}, "every write": func(o *fs.Options) { o.NoWriteback = true },
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			m := newVolume(t, volume.ModeFile)
			m.mount(mode)
			const writers = 6
			for round := range 3 {
				cmd := process(t, "scribble", m.Dir, strconv.Itoa(writers))
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				until(t, "all files are being written", func() bool {
					entries, err := os.ReadDir(m.Dir) // a create that was asked for may be refused yet
					return err == nil && len(entries) == writers
				})
				time.Sleep(time.Duration(10+20*round) * time.Millisecond)
				if err := m.Volume.Lock(); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err != nil {
					t.Fatal(err)
				}
				if err := m.Volume.Unlock(context.Background()); err != nil {
					t.Fatal(err)
				}
				seen := 0
				for answer := range strings.Lines(out.String()) {
					var w, lines, errno int
					if _, err := fmt.Sscan(answer, &w, &lines, &errno); err != nil {
						t.Fatalf("%q: %v", answer, err)
					}
					seen++
					if unix.Errno(errno) != unix.ENOKEY {
						t.Errorf("writer %d was refused with %v, want %v", w, unix.Errno(errno), unix.ENOKEY)
					}
					path := filepath.Join(m.Dir, fmt.Sprint("scribble", w))
					got, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					size := len(line(w, 0))
					if len(got) < lines*size {
						t.Errorf("round %d: writer %d wrote %d lines, %d bytes of them are there", round, w, lines, len(got))
						continue
					}
					for i := range lines {
						if !bytes.Equal(got[i*size:][:size], line(w, i)) {
							t.Errorf("line %d of writer %d reads otherwise", i, w)
							break
						}
					}
					if err := os.Remove(path); err != nil {
						t.Error(err)
					}
				}
				if seen != writers {
					t.Fatalf("%d writers of %d answered:\n%s", seen, writers, &out)
				}
			}
		})
	}
}

func TestNothingIsReadFromTheKernelsCacheOfALockedMount(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	m := newVolume(t, volume.ModeFile)
	m.mount()
	path := func(name string) string { return filepath.Join(m.Dir, name) }
	content := bytes.Repeat([]byte("plaintext "), 5000)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(path("dir/sub"), 0o700))
	must(os.WriteFile(path("dir/sub/file"), content, 0o600))
	must(os.Symlink("dir/sub/file", path("link")))
	must(os.WriteFile(path("unlinked"), content, 0o600))
	open, err := os.OpenFile(path("dir/sub/file"), os.O_RDWR, 0)
	must(err)
	defer open.Close()
	unlinked, err := os.OpenFile(path("unlinked"), os.O_RDWR, 0)
	must(err)
	defer unlinked.Close()
	must(os.Remove(path("unlinked")))
	dir, err := os.Open(path("dir"))
	must(err)
	defer dir.Close()
	look := func() {
		t.Helper()
		for range 2 { // the second time all comes from the cache
			got, err := os.ReadFile(path("dir/sub/file"))
			must(err)
			if !bytes.Equal(got, content) {
				t.Fatal("the file reads otherwise")
			}
			_, err = os.Readlink(path("link"))
			must(err)
			_, err = os.ReadDir(path("dir"))
			must(err)
			_, err = unlinked.ReadAt(make([]byte, 100), 0)
			must(err)
		}
	}
	look()
	warm := m.Mount.Counts().Snapshot()["READ"]
	if _, err := open.ReadAt(make([]byte, 100), 0); err != nil || m.Mount.Counts().Snapshot()["READ"] != warm {
		t.Fatalf("the cache does not answer before: %v", err)
	}
	must(m.Volume.Lock())

	for name, call := range map[string]func() error{
		"read of an open file":      func() error { _, err := open.ReadAt(make([]byte, 100), 0); return err },
		"write to an open file":     func() error { _, err := open.WriteAt(make([]byte, 4096), 0); return err },
		"stat of an open file":      func() error { _, err := open.Stat(); return err },
		"read of an unlinked file":  func() error { _, err := unlinked.ReadAt(make([]byte, 100), 0); return err },
		"read of an open directory": func() error { _, err := dir.Seek(0, io.SeekStart); return errors.Join(err, readAny(dir)) },
		"open":                      func() error { return readOne(path("dir/sub/file")) },
		"stat":                      func() error { _, err := os.Stat(path("dir")); return err },
		"below an open directory":   func() error { return unix.Faccessat(int(dir.Fd()), "sub", unix.F_OK, 0) },
		"readlink":                  func() error { _, err := os.Readlink(path("link")); return err },
		"list":                      func() error { _, err := os.ReadDir(m.Dir); return err },
		"create":                    func() error { return os.WriteFile(path("new"), nil, 0o600) },
	} {
		if err := call(); !errors.Is(err, unix.ENOKEY) {
			t.Errorf("%s: %v, want %v", name, err, unix.ENOKEY)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(m.Dir, &st); err != nil {
		t.Errorf("statfs: %v", err)
	}
	must(m.Volume.Unlock(context.Background()))
	look()
	if _, err := open.WriteAt([]byte("PLAINTEXT"), 0); err != nil {
		t.Errorf("write afterwards: %v", err)
	}
	must(open.Sync())

	// Names, too: the way to the file is asked for again.
	must(m.Volume.Lock())
	must(m.Volume.Unlock(context.Background()))
	before := m.Mount.Counts().Snapshot()["LOOKUP"]
	_, err = os.Stat(path("dir/sub/file"))
	must(err)
	if got := m.Mount.Counts().Snapshot()["LOOKUP"] - before; got != 3 {
		t.Errorf("the kernel looked up %d names of dir/sub/file, want 3", got)
	}
}

func readOne(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Read(make([]byte, 1))
	return err
}

func readAny(dir *os.File) error {
	_, err := dir.Readdirnames(1)
	return err
}

// With the KMS key disabled no read succeeds once its time to live is over, from
// the kernel's cache neither; pages not yet sent reach the disk before.
func TestARevokedKeyTakesEffectWithinTheTimeToLive(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	m := newVolume(t, volume.ModeFile)
	m.keyTTL = 6 * time.Second // longer than a busy machine takes to write
	m.mount()
	content := bytes.Repeat([]byte("plaintext "), 5000)
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx := context.Background()
	key, err := m.store.DescribeKey(ctx, local.DefaultAlias)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.store.DisableKey(ctx, key.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil { // its key is in memory still
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	var failure error
	until(t, "a read that fails", func() bool { _, failure = f.ReadAt(got, 0); return failure != nil })
	if !errors.Is(failure, unix.EKEYREVOKED) {
		t.Errorf("read: %v, want %v", failure, unix.EKEYREVOKED)
	}
	for range 3 {
		if _, err := f.ReadAt(got, 0); !errors.Is(err, unix.EKEYREVOKED) {
			t.Errorf("read again: %v, want %v", err, unix.EKEYREVOKED)
		}
	}
	until(t, "a volume that is closed", func() bool { return m.Volume.Stats().Closed != nil })
	if _, err := os.ReadDir(m.Dir); !errors.Is(err, unix.EKEYREVOKED) {
		t.Errorf("list: %v, want %v", err, unix.EKEYREVOKED)
	}
	if err := m.store.EnableKey(ctx, key.KeyID); err != nil {
		t.Fatal(err)
	}
	until(t, "a read that succeeds", func() bool { _, err := f.ReadAt(got, 0); return err == nil })
	if !bytes.Equal(got, content) {
		t.Error("what was written before is lost")
	}
	if err := f.Sync(); err != nil {
		t.Errorf("fsync: %v", err)
	}
}

// Without a key pages cannot be written back: fsync says so.
func TestFsyncTellsOfPagesForWhichThereWasNoKey(t *testing.T) {
	m := newVolume(t, volume.ModeVolume)
	m.mount()
	f, err := os.Create(filepath.Join(m.Dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mapped := process(t, "mapwrite", filepath.Join(m.Dir, "file"))
	if err := f.Truncate(4096); err != nil {
		t.Fatal(err)
	}
	if out, err := mapped.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := m.Volume.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, unix.ENOKEY) {
		t.Errorf("fsync while it is locked: %v, want %v", err, unix.ENOKEY)
	}
	if err := m.Volume.Unlock(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "mapped" {
		t.Errorf("what was written through a mapping reads %q, %v", got, err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("fsync afterwards: %v", err)
	}
}

func init() {
	processes["mapwrite"] = func(args []string) int {
		f, err := os.OpenFile(args[0], os.O_RDWR, 0)
		if err == nil {
			var mapped []byte
			if mapped, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
				copy(mapped, "mapped")
				return 0
			}
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}
