package volume

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

var reencryptKills = flag.Int("reencrypt.kills", 8, "how often reencrypt is killed at most")

const reencryptEnv = "KMSFS_TEST_REENCRYPT_CHILD"

// reencryptChild gives all files new keys, until it is done or killed.
func reencryptChild(dir, state string) {
	b := &bench{dir: dir, state: state, kms: fixedKMS(), log: new(bytes.Buffer)}
	v, err := b.tryOpen()
	var r ReencryptReport
	if err == nil {
		step := killsItself(reencryptEnv)
		step()
		r, err = v.Reencrypt(context.Background(), ReencryptOptions{Progress: func(int64, int64) { step() }})
	}
	if err == nil {
		err = v.Close()
	}
	if err != nil || !r.Complete {
		fmt.Fprintf(os.Stderr, "child: %v, %+v\n", err, r)
		os.Exit(1)
	}
	fmt.Println("C", r.Files, r.Already, r.Temporaries)
	os.Exit(0)
}

func TestAReencryptKilledAnywhereLeavesEveryFileReadableAndGoesOn(t *testing.T) {
	const n = 150
	b := newBenchWith(t, ModeFile, fixedKMS())
	v := b.open()
	content := func(i int) []byte { return pattern((i*i*97)%60_000, byte(i)) }
	for i := range n {
		createFile(t, v.Root(), fileName(i), content(i))
	}
	before := map[string]fileState{}
	treeState(t, v.Root(), before)
	b.close(v)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	kills, temporaries, done := 0, 0, ""
	for ; kills < *reencryptKills && done == ""; kills++ {
		done = killedChild(t, reencryptEnv, b, rng.IntN(50), time.Duration(rng.IntN(15_000))*time.Microsecond)
		temporaries += len(b.temporaries())
		v := b.open()
		for i := range n {
			if got := readAll(t, lookup(t, v.Root(), fileName(i))); !bytes.Equal(got, content(i)) {
				t.Fatalf("after kill %d, file %d holds something else", kills, i)
			}
		}
		if got := len(list(t, v.Root())); got != n {
			t.Fatalf("after kill %d, %d entries are listed", kills, got)
		}
		b.close(v)
	}
	if done == "" {
		done = killedChild(t, reencryptEnv, b, -1, 0)
	}
	var files, already, removed int
	if _, err := fmt.Sscanf(done, "C %d %d %d", &files, &already, &removed); err != nil || files+already != n {
		t.Errorf("the last one said %q", done)
	}
	t.Logf("killed %d times, with %d temporaries left in all; the last one said %q", kills, temporaries, done)
	if kills < 3 || already == 0 {
		t.Error("it was hardly killed")
	}
	if got := b.temporaries(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	v = b.open()
	after := map[string]fileState{}
	treeState(t, v.Root(), after)
	compareTrees(t, before, after)
	for i := range n {
		checkSeal(t, lookup(t, v.Root(), fileName(i)))
	}
}
