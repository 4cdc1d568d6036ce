package integration

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kmsfs/integration/emulator"
)

// busy writes to files on a mount until it is stopped.
type busy struct {
	t     *testing.T
	dir   string
	stop  chan struct{}
	group sync.WaitGroup
}

const (
	busyFiles = 20
	busySize  = 5 * 4096
	busyBig   = 24 << 20 // sent in parts
)

// pageOf is a page of one version of a file.
func pageOf(version int) []byte { return bytes.Repeat([]byte{byte(version)}, 4096) }

// work changes small files as a whole, a large one at both ends, and names.
func (b *busy) work() {
	each := func(change func(i int) error) {
		b.group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-b.stop:
					return
				default:
				}
				if err := change(i); err != nil {
					b.t.Error(err)
					return
				}
				time.Sleep(5 * time.Millisecond) // others work here, too
			}
		})
	}
	write := func(name string, page []byte, offsets ...int64) error {
		f, err := os.OpenFile(filepath.Join(b.dir, name), os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, off := range offsets {
			if _, err := f.WriteAt(page, off); err != nil {
				return err
			}
		}
		return f.Sync()
	}
	each(func(i int) error {
		content := bytes.Repeat(pageOf(i), busySize/4096)
		return write(fmt.Sprintf("small-%02d", rand.IntN(busyFiles)), content, 0)
	})
	each(func(i int) error { return write("big", pageOf(i), 0, busyBig/2, busyBig-4096) })
	each(func(i int) error {
		name := fmt.Sprintf("moved-%02d", i%10)
		time.Sleep(50 * time.Millisecond)
		if err := write("coming", pageOf(i), 0); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(b.dir, "coming"), filepath.Join(b.dir, name)); err != nil {
			return err
		}
		if i%3 != 0 {
			return nil
		}
		return os.Remove(filepath.Join(b.dir, name))
	})
}

func TestACopyTakenWhileFilesChangeNamesWhatItTore(t *testing.T) {
	t.Parallel()
	withEveryTool(t, func(t *testing.T, store *emulator.Store, tool string) {
		s := newSyncer(t, tool, store, store.URL)
		slow := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(slow, []byte("[default]\ns3 =\n  max_bandwidth = 12MB/s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t)
		d.start()
		still := map[string][]byte{}
		for i := range 20 {
			name := fmt.Sprintf("still-%02d", i)
			still[name] = bytes.Repeat(pageOf(i), i)
			if err := os.WriteFile(filepath.Join(d.Dir, name), still[name], 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for i := range busyFiles {
			if err := os.WriteFile(filepath.Join(d.Dir, fmt.Sprintf("small-%02d", i)), make([]byte, busySize), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(d.Dir, "big"), make([]byte, busyBig), 0o644); err != nil {
			t.Fatal(err)
		}
		s.run("up", d.Backing) // else rclone, which sees changes, leaves out what it sees changing

		b := &busy{t: t, dir: d.Dir, stop: make(chan struct{})}
		b.work()
		_, err := s.try("up", d.Backing, "AWS_CONFIG_FILE="+slow, "RCLONE_BWLIMIT=12M", "RCLONE_RETRIES=1", "RCLONE_LOCAL_NO_CHECK_UPDATED=true")
		close(b.stop)
		b.group.Wait()
		if err != nil {
			t.Logf("as it may: %v", err)
		}
		d.stop()

		copied := d.elsewhere(filepath.Join(t.TempDir(), "copy"))
		if _, err := s.try("down", copied.Backing); err != nil {
			t.Logf("down: %v", err)
			// moto takes what it gets, and the checksum that is said to be its own.
			if store.Name != "moto" || tool != "aws" {
				t.Error("a copy that the store took does not come down")
			}
		}
		said, _ := copied.fsck()
		named := func(name string) bool { return strings.Contains(said, strconv.Quote(name)) }
		copied.start()
		refused := copied.readAll(t, still, named)
		copied.stop()
		t.Logf("%d files are refused; big is named: %v", refused, named("big"))
		// The other store refuses what does not have its checksum, and aws, here.
		if store.Name == "moto" && tool == "rclone" && !named("big") {
			t.Errorf("fsck does not name the large file that changed all the time:\n%s", said)
		}

		// The next copy, when all is quiet, is whole.
		d.start()
		want := tree(t, d.Dir)
		d.stop()
		s.run("up", d.Backing)
		s.run("down", copied.Backing)
		if said, code := copied.fsck(); code != 0 {
			t.Errorf("after the next sync: %d\n%s", code, said)
		}
		copied.start()
		got := tree(t, copied.Dir)
		copied.stop()
		for name, f := range want {
			if got[name].Content != f.Content {
				t.Errorf("%s is another", name)
			}
		}
	})
}

// readAll reads every file of a copy. What nobody wrote to reads as it was; of
// the others each page is of one version, or the file is refused and named.
func (d *daemon) readAll(t *testing.T, still map[string][]byte, named func(string) bool) (refused int) {
	t.Helper()
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, e := range entries {
		name := e.Name()
		content, err := os.ReadFile(filepath.Join(d.Dir, name))
		want, quiet := still[name]
		switch {
		case quiet:
			seen++
			if err != nil || !bytes.Equal(content, want) || named(name) {
				t.Errorf("%s, which did not change: %d bytes, %v, named %v", name, len(content), err, named(name))
			}
		case err != nil:
			refused++
			if !errors.Is(err, syscall.EIO) || !named(name) {
				t.Errorf("%s: %v, named %v", name, err, named(name))
			}
		default:
			for page := content; len(page) >= 4096; page = page[4096:] {
				if len(bytes.Trim(page[:4096], string(page[:1]))) != 0 {
					t.Errorf("%s: a page of two versions", name)
				}
			}
		}
	}
	if seen != len(still) {
		t.Errorf("%d of %d files that did not change are there", seen, len(still))
	}
	if len(entries) < len(still)+busyFiles/2 {
		t.Errorf("only %d files came", len(entries))
	}
	return refused
}
