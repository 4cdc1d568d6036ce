package integration

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/integration/emulator"
)

var (
	copyKills = flag.Int("copies.kills", 3, "how often push and pull are each killed")
	copyTree  = flag.String("copies.tree", "crypto/tls", "the part of the Go distribution's sources that goes into a bucket and back; . is all")
	copyFiles = flag.Int("copies.files", 1000, "how many files there are of which ten are changed")
)

// keeper runs push, pull and verify of a volume and a bucket.
type keeper struct {
	*daemon
	url string
}

func newKeeper(t testing.TB, s *emulator.Store) *keeper {
	t.Helper()
	return &keeper{newDaemonIn(t, s.Environment(s.URL), "--key-mode", "volume"), "s3://" + s.CreateBucket(t) + "/a/copy"}
}

// on is the same copy with the volume in another directory, of another host.
func (k *keeper) on(d *daemon) *keeper { return &keeper{d, k.url} }

// report runs a command with --json.
func (k *keeper) report(into any, args ...string) {
	k.t.Helper()
	cmd := exec.Command(k.bin, append(args, "--json")...)
	cmd.Env = k.env
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		k.t.Fatalf("kmsfs %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if err := json.Unmarshal(out.Bytes(), into); err != nil {
		k.t.Fatalf("kmsfs %s prints %s: %v", strings.Join(args, " "), out.String(), err)
	}
}

type pushed struct {
	Generation uint64
	Changed    bool
	Files      uint64
	Sent       int64 `json:"objects_sent"`
	SentBytes  int64 `json:"bytes_sent"`
	FoundAgain int64 `json:"objects_found_again"`
}

func (k *keeper) push(flags ...string) (p pushed) {
	k.t.Helper()
	k.report(&p, append([]string{"push", k.Backing, k.url}, flags...)...)
	return p
}

func (k *keeper) pull(flags ...string) {
	k.t.Helper()
	k.report(new(any), append([]string{"pull", k.url, k.Backing}, flags...)...)
}

func (k *keeper) verify(flags ...string) {
	k.t.Helper()
	var r struct {
		Problems, Differences []any
		Objects               int64
	}
	k.report(&r, append([]string{"verify", k.Backing, k.url}, flags...)...)
	if len(r.Problems)+len(r.Differences) > 0 || r.Objects == 0 {
		k.t.Errorf("verify finds %+v", r)
	}
}

// lose removes the volume, and what the host remembers of it.
func (k *keeper) lose() {
	k.t.Helper()
	for _, dir := range []string{k.Backing, filepath.Join(filepath.Dir(k.Backing), "state")} {
		if err := os.RemoveAll(dir); err != nil {
			k.t.Fatal(err)
		}
	}
}

// fill puts a source tree and one of every kind into the volume, which is mounted.
func (k *keeper) fill(t *testing.T) {
	t.Helper()
	run(t, "cp", "-a", sourceTree(t, *copyTree), k.Dir+"/tree")
	if err := os.Mkdir(k.Dir+"/odd", 0o755); err != nil {
		t.Fatal(err)
	}
	everyKind(t, k.Dir+"/odd")
}

// mustBe mounts the volume and compares it with what it was.
func (k *keeper) mustBe(want map[string]facts) {
	k.t.Helper()
	k.start()
	mustBeTree(k.t, want, tree(k.t, k.Dir))
	k.stop()
}

func mustBeTree(t testing.TB, want, got map[string]facts) {
	t.Helper()
	for name, w := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%q is missing", name)
		} else if g != w {
			t.Errorf("%q is %+v, and was %+v", name, g, w)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q should not be there", name)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

func TestAVolumeGoesIntoABucketAndComesBackWhole(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		k := newKeeper(t, s)
		k.start()
		k.fill(t)
		want := tree(t, k.Dir)
		first := k.push("--jobs", "8") // it is mounted, and written pages are in the kernel
		k.stop()
		if first.Files < 50 || first.Sent < 50 {
			t.Fatalf("the first push says %+v", first)
		}
		if again := k.push(); again.Changed {
			t.Errorf("what nobody changed was pushed again: %+v", again)
		}
		k.verify()
		k.verify("--full")
		k.lose()
		k.pull("--jobs", "8")
		k.mustBe(want)
		k.verify()
		if out, code := k.fsck(); code != 0 {
			t.Errorf("fsck says %d: %s", code, out)
		}
	})
}

func TestASecondPushSendsTenFilesOfMany(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		k := newKeeper(t, s)
		k.start()
		for i := range *copyFiles {
			if err := os.WriteFile(filepath.Join(k.Dir, fmt.Sprintf("file %d", i)), make([]byte, 1000+i), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		first := k.push()
		for i := range 10 {
			f, err := os.OpenFile(filepath.Join(k.Dir, fmt.Sprintf("file %d", i*(*copyFiles/10))), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt([]byte("changed"), 500)
			if cerr := f.Close(); err != nil || cerr != nil {
				t.Fatal(err, cerr)
			}
		}
		second := k.push()
		k.stop()
		t.Logf("%d files: first %d objects, %d bytes; then 10 changed: %d objects, %d bytes", *copyFiles, first.Sent, first.SentBytes, second.Sent, second.SentBytes)
		if second.Sent != 11 { // ten files and the manifest
			t.Errorf("it sent %d objects", second.Sent)
		}
		k.verify()
	})
}

// killAt runs a command and kills it after a while; it tells whether it had ended.
func (k *keeper) killAt(after time.Duration, args ...string) (ended bool) {
	k.t.Helper()
	cmd := exec.Command(k.bin, args...)
	cmd.Env = k.env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	if err == nil {
		return true
	}
	if cmd.ProcessState.Exited() {
		k.t.Fatalf("kmsfs %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return false
}

// TestPushAndPullAreKilledAndGoOn kills each of them at random. Where one ends before
// its time, the next is killed earlier.
func TestPushAndPullAreKilledAndGoOn(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		k := newKeeper(t, s)
		k.start()
		k.fill(t)
		want := tree(t, k.Dir)
		k.stop()
		began := time.Now()
		k.on(k.daemon).push()
		takes := time.Since(began)
		kills, found := 0, int64(0)
		for kills < *copyKills {
			k.url = "s3://" + s.CreateBucket(t) // a new one each time that it was done
			for n := 0; n < 5 && kills < *copyKills; n++ {
				if k.killAt(time.Duration(rand.Int64N(int64(takes))), "push", k.Backing, k.url) {
					takes = takes*9/10 + time.Millisecond
					break
				}
				kills++
			}
			found += k.push().FoundAgain
			k.verify()
			back := k.on(k.elsewhere(filepath.Join(t.TempDir(), "back")))
			back.pull()
			back.mustBe(want)
		}
		t.Logf("push was killed %d times, and found %d objects again", kills, found)

		began = time.Now()
		k.on(k.elsewhere(filepath.Join(t.TempDir(), "back"))).pull()
		takes = time.Since(began)
		for kills = 0; kills < *copyKills; {
			back := k.on(k.elsewhere(filepath.Join(t.TempDir(), "back")))
			for n := 0; n < 5 && kills < *copyKills; n++ {
				if back.killAt(time.Duration(rand.Int64N(int64(takes))), "pull", k.url, back.Backing) {
					takes = takes*9/10 + time.Millisecond
					break
				}
				kills++
			}
			back.pull()
			back.verify()
			back.mustBe(want)
		}
		t.Logf("pull was killed %d times", kills)
	})
}

// TestAMountThatIsWrittenToIsPushed has files that are rewritten, each in one
// request, and moved to and fro: every state has each of them once, as a whole.
func TestAMountThatIsWrittenToIsPushed(t *testing.T) {
	emulator.Stores(t, func(t *testing.T, s *emulator.Store) {
		k := newKeeper(t, s)
		k.start("-o", "writeback=off")
		const files = 8
		for _, dir := range []string{"a", "b"} {
			if err := os.Mkdir(filepath.Join(k.Dir, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var stop atomic.Bool
		var writers sync.WaitGroup
		for i := range files {
			writers.Go(func() {
				for n := 0; !stop.Load(); n++ {
					from, to := filepath.Join(k.Dir, "ab"[n%2:][:1], fmt.Sprint(i)), filepath.Join(k.Dir, "ba"[n%2:][:1], fmt.Sprint(i))
					if err := rewrite(from, n); err != nil {
						t.Error(err)
						return
					}
					if err := os.Rename(from, to); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		for range 3 {
			if p := k.push(); p.Files != files {
				t.Errorf("a state has %d files", p.Files)
			}
		}
		stop.Store(true)
		writers.Wait()
		k.stop()
		for g := 1; g <= 3; g++ {
			back := k.on(k.elsewhere(filepath.Join(t.TempDir(), "back")))
			back.pull("--state", fmt.Sprint(g))
			if out, code := back.fsck(); code != 0 {
				t.Fatalf("state %d: fsck says %d: %s", g, code, out)
			}
			back.start()
			seen := map[string]int{}
			for name := range tree(t, back.Dir) {
				if base := filepath.Base(name); strings.Contains(name, "/") {
					seen[base]++
					content, err := os.ReadFile(filepath.Join(back.Dir, name))
					if err != nil || len(content) != rewriteSize || len(bytes.Trim(content, string(content[:1]))) != 0 {
						t.Errorf("state %d: %s is torn, or cannot be read: %v", g, name, err)
					}
				}
			}
			back.stop()
			if keys := slices.Sorted(maps.Keys(seen)); len(keys) != files || slices.Max(slices.Collect(maps.Values(seen))) != 1 {
				t.Errorf("state %d has files %v", g, seen)
			}
		}
	})
}

const rewriteSize = 100 << 10

func rewrite(name string, n int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{byte('a' + n%26)}, rewriteSize), 0)
	return err
}
