package volume

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	rewrapFiles = flag.Int("rewrap.files", 2000, "sidecars of the rewrap that is killed")
	rewrapKills = flag.Int("rewrap.kills", 8, "how often it is killed at most")
)

const rewrapEnv = "KMSFS_TEST_REWRAP_CHILD"

// rewrapChild replaces key A by key B, until it is done or killed.
func rewrapChild(dir, state string) {
	b := &bench{dir: dir, state: state, kms: fixedKMS(), log: new(bytes.Buffer)}
	step := killsItself(rewrapEnv)
	step()
	r, err := b.rewrap(uriA, uriB, func(o *RewrapOptions) {
		o.Progress = func(int, int) { step() }
	})
	if err != nil || !r.Complete || r.Proven != r.Sidecars {
		fmt.Fprintf(os.Stderr, "child: %v, %+v\n", err, r)
		os.Exit(1)
	}
	fmt.Println("C", r.Proven, r.Rewritten)
	os.Exit(0)
}

// killedChild runs this test binary as the child that env names, which kills
// itself after so many steps of its work and a moment. With -1 steps, and where it
// is faster than that, it ends by itself and says how: a line that begins with C.
func killedChild(t *testing.T, env string, b *bench, steps int, then time.Duration) (completed string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+b.dir, env+"_STATE="+b.state, fmt.Sprintf("%s_KILL=%d %d", env, steps, then))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child failed: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// killsItself is for the child, to be called at each step. Nobody else could do it
// in time: on a busy machine the child may be done before its parent comes to run.
func killsItself(env string) (step func()) {
	var steps int
	var then time.Duration
	if _, err := fmt.Sscan(os.Getenv(env+"_KILL"), &steps, &then); err != nil {
		panic(err)
	}
	return func() {
		if steps == 0 {
			time.AfterFunc(then, func() { _ = unix.Kill(os.Getpid(), unix.SIGKILL) })
		}
		steps--
	}
}

func TestARewrapKilledAnywhereGoesOnAndLosesNothing(t *testing.T) {
	n := *rewrapFiles
	b := newBenchWith(t, ModeFile, fixedKMS())
	v := b.open()
	for i := range n {
		createFile(t, v.Root(), fileName(i), pattern(i%300, byte(i)))
	}
	b.close(v)
	data := hashTree(t, b.dir, dataFiles)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	kills, done := 0, ""
	for ; kills < *rewrapKills && done == ""; kills++ {
		steps := rng.IntN(n / 3)
		if kills%4 == 0 {
			steps = 0 // while volume.json is about to change
		}
		done = killedChild(t, rewrapEnv, b, steps, time.Duration(rng.IntN(20_000))*time.Microsecond)
		// Half-way everything opens, with both keys.
		v := b.open()
		for range 20 {
			i := rng.IntN(n)
			if got := readAll(t, lookup(t, v.Root(), fileName(i))); !bytes.Equal(got, pattern(i%300, byte(i))) {
				t.Fatalf("after kill %d, file %d holds something else", kills, i)
			}
		}
		b.close(v)
	}
	if done == "" {
		done = killedChild(t, rewrapEnv, b, -1, 0)
	}
	t.Logf("killed %d times; the last one said %q", kills, done)
	if kills < 2 {
		t.Error("it was hardly killed")
	}
	if got := hashTree(t, b.dir, dataFiles); !maps.Equal(got, data) {
		t.Error("data files changed")
	}
	// One more proves what the last one left, and finds nothing to do.
	if r := b.mustRewrap(uriA, uriB); r.Proven != n || r.Rewritten != 0 || r.Passes != 1 {
		t.Errorf("%+v", r)
	}
	b.checkSidecars(n, keyB)
	delete(b.kms.keys, keyA)
	v = b.open()
	for i := range n {
		if got := readAll(t, lookup(t, v.Root(), fileName(i))); !bytes.Equal(got, pattern(i%300, byte(i))) {
			t.Fatalf("file %d holds something else", i)
		}
	}
	if err := lookup(t, v.Root(), fileName(0)).Truncate(context.Background(), 0); err != nil {
		t.Error(err)
	}
}
