package integration

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var killRounds = flag.Int("kill.rounds", 4, "how often the daemon is killed")

// killFile is what a writer knows of its file: the content that an fsync or a
// close acknowledged, and what it was writing when the daemon was killed.
type killFile struct {
	name    string
	acked   []byte
	writing []byte // nil if nothing was under way
}

func TestWhatWasSyncedOrClosedSurvivesKillingTheDaemon(t *testing.T) {
	d := newDaemon(t)
	files := make([]*killFile, 6)
	for i := range files {
		files[i] = &killFile{name: fmt.Sprint("file", i)}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	acked, cut := 0, 0
	for round := range *killRounds {
		d.start()
		for _, f := range files {
			f.check(t, d.Dir, round)
		}
		// Once the mount is cleared away its path leads to an ordinary directory;
		// what is opened below this root stays on the dead mount.
		root, err := os.OpenRoot(d.Dir)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		counts := make([]int, len(files))
		var safe atomic.Int64
		for i, f := range files {
			rng := rand.New(rand.NewPCG(seed+uint64(round), uint64(i)))
			wg.Go(func() { counts[i] = f.writeUntilKilled(root, rng, &safe) })
		}
		until(t, "a write that was acknowledged", func() bool { return safe.Load() > 0 })
		time.Sleep(time.Duration(100+rand.IntN(250)) * time.Millisecond)
		d.kill()
		wg.Wait()
		root.Close()
		for i, f := range files {
			acked += counts[i]
			if f.writing != nil {
				cut++
			}
		}
	}
	d.start()
	for _, f := range files {
		f.check(t, d.Dir, *killRounds)
	}
	d.stop()
	t.Logf("%d writes acknowledged, %d cut short", acked, cut)
	if acked == 0 || cut == 0 {
		t.Error("the daemon was never killed in the middle of its work")
	}
}

// writeUntilKilled rewrites the file again and again, and returns how often it
// was told that the data is safe; safe counts that meanwhile.
func (f *killFile) writeUntilKilled(root *os.Root, rng *rand.Rand, safe *atomic.Int64) (acked int) {
	for {
		next := bytes.Clone(f.acked)
		off := rng.IntN(len(next) + 1)
		data := bytes.Repeat([]byte{byte(1 + rng.IntN(255))}, 1+rng.IntN(100_000))
		next = append(next[:off], append(data, next[min(len(next), off+len(data)):]...)...)
		f.writing = next
		if err := write(root, f.name, data, int64(off), rng.IntN(2) == 0); err != nil {
			return acked
		}
		f.acked, f.writing = next, nil
		acked++
		safe.Add(1)
	}
}

// write writes and makes sure that it is safe, by fsync or by closing.
func write(root *os.Root, name string, data []byte, off int64, sync bool) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, off)
	if err == nil && sync {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// check compares the file with what was acknowledged: each page is that, or
// what was being written. It goes on from what it finds.
func (f *killFile) check(t *testing.T, dir string, round int) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, f.name))
	if os.IsNotExist(err) && len(f.acked) == 0 {
		got, err = nil, nil
	}
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	next := f.writing
	if next == nil {
		next = f.acked
	}
	if len(got) < len(f.acked) || len(got) > max(len(next), len(f.acked)) {
		t.Fatalf("round %d, %s: %d bytes, acknowledged were %d, being written %d", round, f.name, len(got), len(f.acked), len(next))
	}
	for off := 0; off < len(got); off += 4096 {
		page := got[off:min(len(got), off+4096)]
		if !agrees(page, f.acked, off) && !agrees(page, next, off) && len(bytes.Trim(page, "\x00")) > 0 {
			t.Fatalf("round %d, %s: page %d is neither what was acknowledged nor what was being written", round, f.name, off/4096)
		}
		if !agrees(page, f.acked, off) && !agrees(page, next, off) && off < len(f.acked) {
			t.Fatalf("round %d, %s: page %d was acknowledged and is gone", round, f.name, off/4096)
		}
	}
	f.acked, f.writing = got, nil
}

// agrees compares a page with content from off on, as far as both go.
func agrees(page, content []byte, off int) bool {
	if off >= len(content) {
		return false
	}
	n := min(len(page), len(content)-off)
	return bytes.Equal(page[:n], content[off:off+n]) && len(bytes.Trim(page[n:], "\x00")) == 0
}
