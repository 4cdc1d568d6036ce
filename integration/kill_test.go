package integration

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	killRounds = flag.Int("kill.rounds", 4, "how often the daemon is killed")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of the kill test; 0 draws one")
)

// The kill test kills the daemon at random instants while several processes
// change files of its mount. They say on a pipe what they are about to do and
// what was acknowledged, so that what the next mount shows can be compared.

const (
	killProcesses = 3
	killWriters   = 3 // in each process
	killLimit     = 150_000
)

func TestWhatWasSyncedOrClosedSurvivesKillingTheDaemon(t *testing.T) {
	d := newDaemon(t)
	files := make([]killFile, killProcesses*killWriters)
	seed := *killSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	began := time.Now()
	acked, cut := map[byte]int{}, map[byte]int{}
	for round := range *killRounds {
		// Without its cache the kernel sends every write at once.
		d.start([][]string{nil, {"-o", "writeback=off"}}[round%2]...)
		checkKilled(t, d, files, round)
		// Once the mount is cleared away its path leads to an ordinary directory.
		mount, err := os.Open(d.Dir)
		if err != nil {
			t.Fatal(err)
		}
		killing.Store(false)
		before := total(acked)
		var wg sync.WaitGroup
		for p := range killProcesses {
			wg.Go(func() { killRound(t, mount, files, p*killWriters, seed+uint64(round), acked) })
		}
		until(t, "an operation that was acknowledged", func() bool {
			killMu.Lock()
			defer killMu.Unlock()
			return total(acked) > before || t.Failed()
		})
		time.Sleep(time.Duration(20+rng.IntN(180)) * time.Millisecond)
		killing.Store(true)
		d.kill()
		wg.Wait()
		mount.Close()
		if t.Failed() {
			return
		}
		for _, f := range files {
			if f.pending != nil {
				cut[f.pending.kind]++
			}
		}
		if (round+1)%100 == 0 {
			t.Logf("%d rounds after %v", round+1, time.Since(began).Round(time.Second))
		}
	}
	d.start()
	checkKilled(t, d, files, *killRounds)
	d.stop()
	orphans := killLeftovers(t, d.Backing)
	t.Logf("%d rounds: acknowledged %s; cut short %s; 0 lost, 0 torn, 0 false alarms; %d files of .kmsfs/keys for %d files",
		*killRounds, byKind(acked), byKind(cut), orphans, len(files))
	if len(acked) == 0 || len(cut) == 0 {
		t.Error("the daemon was never killed in the middle of its work")
	}
}

func total(counts map[byte]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func byKind(counts map[byte]int) string {
	var parts []string
	for _, k := range []byte("cwtrxu") {
		parts = append(parts, fmt.Sprintf("%c %d", k, counts[k]))
	}
	return fmt.Sprintf("%d (%s)", total(counts), strings.Join(parts, ", "))
}

var (
	killMu  sync.Mutex  // of files and counts
	killing atomic.Bool // the daemon is about to be killed, or was
)

// killRound runs one process of writers until it can do no more.
func killRound(t *testing.T, mount *os.File, files []killFile, first int, seed uint64, acked map[byte]int) {
	cmd := process(t, "kill writer", strconv.Itoa(first), strconv.FormatUint(seed, 10))
	cmd.ExtraFiles = []*os.File{mount}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return
	}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		line := sc.Text()
		var kind string
		var w int
		if _, err := fmt.Sscan(line, &kind, &w); err != nil || w < first || w >= first+killWriters {
			t.Errorf("a writer says %q", line)
			break
		}
		killMu.Lock()
		f := &files[w]
		switch kind {
		case "B":
			o := new(killOp)
			if _, err := fmt.Sscanf(strings.SplitN(line, " ", 3)[2], "%c %d %d %d %t", &o.kind, &o.off, &o.n, &o.seed, &o.sync); err != nil {
				t.Errorf("a writer says %q: %v", line, err)
			}
			f.pending = o
		case "A":
			acked[f.pending.kind]++
			*f = f.apply(f.pending)
		case "E": // nothing fails before the daemon is killed
			if !killing.Load() {
				t.Errorf("a writer failed: %s", line)
			}
		}
		killMu.Unlock()
	}
	_ = cmd.Wait()
}

// checkKilled compares what the mount shows with what was acknowledged, and goes
// on from what it shows.
func checkKilled(t *testing.T, d *daemon, files []killFile, round int) {
	t.Helper()
	var want []string
	for w := range files {
		want = append(want, killName(w, false), killName(w, true), fmt.Sprint("new ", w))
	}
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(d.Dir, e.Name()))
		if err != nil || !slices.Contains(want, e.Name()) {
			t.Fatalf("round %d: %q, %d bytes, %v", round, e.Name(), len(b), err)
		}
	}
	for w := range files {
		f := &files[w]
		next := *f
		if f.pending != nil {
			next = f.apply(f.pending)
		}
		var got killFile
		found := 0
		for _, second := range []bool{false, true} {
			b, err := os.ReadFile(filepath.Join(d.Dir, killName(w, second)))
			if err == nil {
				got = killFile{content: append([]byte{}, b...), second: second}
				found++
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		if found > 1 {
			t.Fatalf("round %d: file %d has both names", round, w)
		}
		if err := got.between(*f, next); err != nil {
			t.Fatalf("round %d, file %d, after %v: %v", round, w, f.pending, err)
		}
		*f = got
	}
}

// between tells why a file is neither what was acknowledged nor on its way to
// what was being done.
func (f killFile) between(acked, next killFile) error {
	same := func(a killFile) bool {
		return f.second == a.second && (f.content == nil) == (a.content == nil) && bytes.Equal(f.content, a.content)
	}
	if same(acked) || same(next) {
		return nil
	}
	if acked.pending == nil || acked.pending.kind != 'w' && acked.pending.kind != 'c' || f.content == nil {
		return fmt.Errorf("%s; acknowledged %s, then %s", f, acked, next)
	}
	// Pages of a write reach the daemon in any order.
	if len(f.content) < min(len(acked.content), len(next.content)) || len(f.content) > len(next.content) {
		return fmt.Errorf("%d bytes; acknowledged %d, then %d", len(f.content), len(acked.content), len(next.content))
	}
	for off := 0; off < len(f.content); off += 4096 {
		page := f.content[off:min(len(f.content), off+4096)]
		if !agrees(page, acked.content, off) && !agrees(page, next.content, off) {
			return fmt.Errorf("page %d is neither what was acknowledged nor what was being written", off/4096)
		}
	}
	return nil
}

func (f killFile) String() string {
	if f.content == nil {
		return "no file"
	}
	return fmt.Sprintf("%d bytes, second name %v", len(f.content), f.second)
}

// agrees compares a page with content from off on, with zeros after its end.
func agrees(page, content []byte, off int) bool {
	n := max(0, min(len(page), len(content)-off))
	return bytes.Equal(page[:n], content[min(off, len(content)):min(off, len(content))+n]) && len(bytes.Trim(page[n:], "\x00")) == 0
}

// killLeftovers makes sure that nothing lies in the backing directory but what
// may, and counts the sidecars.
func killLeftovers(t *testing.T, backing string) (sidecars int) {
	t.Helper()
	err := filepath.WalkDir(backing, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(backing, p)
		switch dir := filepath.Dir(rel); {
		case strings.HasPrefix(rel, ".kmsfs/keys/"):
			sidecars++
		case strings.HasPrefix(rel, ".kmsfs/redo/"), strings.HasPrefix(rel, ".kmsfs/sessions/"), strings.HasPrefix(rel, ".kmsfs/links/"),
			dir == "." && strings.HasPrefix(rel, ".kmsfs.tmp."):
			t.Errorf("left: %s", rel)
		case strings.HasSuffix(rel, ".name"):
			if _, err := os.Lstat(strings.TrimSuffix(p, ".name")); err != nil {
				t.Errorf("left: %s", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sidecars
}
