package volume

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

var crashRounds = flag.Int("crash.rounds", 25, "how often the writing process is killed")

// The crash test kills a process that changes files of a volume, at random
// instants, and looks at what the next one finds. The process says on a pipe
// what it is about to do and what is done, so the parent knows what was
// acknowledged, whatever happens.

const (
	crashEnv   = "KMSFS_TEST_CRASH_CHILD"
	crashFiles = 4
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashChild(dir, os.Getenv(crashEnv+"_STATE"), os.Getenv(crashEnv+"_SEED"))
		os.Exit(0)
	}
	if dir := os.Getenv(rewrapEnv); dir != "" {
		rewrapChild(dir, os.Getenv(rewrapEnv+"_STATE"))
	}
	if dir := os.Getenv(reencryptEnv); dir != "" {
		reencryptChild(dir, os.Getenv(reencryptEnv+"_STATE"))
	}
	os.Exit(m.Run())
}

// crashOp is one operation on file number File.
type crashOp struct {
	file int
	kind byte // 'W'rite, 'T'runcate, 'R'ename, 'S'ync
	off  int
	n    int
	seed byte
}

func (o crashOp) String() string {
	return fmt.Sprintf("%d %c %d %d %d", o.file, o.kind, o.off, o.n, o.seed)
}

func parseCrashOp(s string) (o crashOp, err error) {
	_, err = fmt.Sscanf(s, "%d %c %d %d %d", &o.file, &o.kind, &o.off, &o.n, &o.seed)
	return o, err
}

func crashName(file int, renamed bool) string {
	return fmt.Sprintf("file%d-%v", file, renamed)
}

// crashChild changes files until it is killed.
func crashChild(dir, state, seed string) {
	s, _ := strconv.ParseUint(seed, 10, 64)
	b := &bench{dir: dir, state: state, kms: fixedKMS(), log: new(bytes.Buffer)}
	v, err := b.tryOpen()
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf(format+"\n", args...)
	}
	var wg sync.WaitGroup
	for file := range crashFiles {
		wg.Go(func() {
			if err := crashWriter(v, file, rand.New(rand.NewPCG(s, uint64(file))), say); err != nil {
				say("E %d %v", file, err)
			}
		})
	}
	wg.Wait()
}

func crashWriter(v *Volume, file int, rng *rand.Rand, say func(string, ...any)) error {
	renamed := false
	n, _, err := v.Root().Lookup(crashName(file, false))
	if errors.Is(err, unix.ENOENT) {
		renamed = true
		n, _, err = v.Root().Lookup(crashName(file, true))
	}
	if err != nil {
		return err
	}
	for {
		op := crashOp{file: file, seed: byte(rng.IntN(256))}
		switch k := rng.IntN(20); {
		case k < 13:
			op.kind, op.off, op.n = 'W', rng.IntN(200_000), 1+rng.IntN(60_000)
		case k < 16:
			op.kind, op.off = 'T', rng.IntN(200_000)
		case k < 19:
			op.kind = 'R'
		default:
			op.kind = 'S'
		}
		say("B %v", op)
		switch op.kind {
		case 'W':
			_, err = n.WriteAt(context.Background(), pattern(op.n, op.seed), int64(op.off))
		case 'T':
			err = n.Truncate(context.Background(), int64(op.off))
		case 'R':
			err = v.Root().Rename(crashName(file, renamed), v.Root(), crashName(file, !renamed), 0)
			renamed = !renamed
		case 'S':
			err = n.Sync(false)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", op, err)
		}
		say("A %d", file)
	}
}

// fixedKMS is a fake KMS whose two keys are the same in every process.
func fixedKMS() *fakeKMS {
	k := newFakeKMS()
	for i, id := range []string{fakeKey, keyB} {
		key, _ := crypto.NewKey(bytes.Repeat([]byte{7 + byte(i)}, 32))
		k.keys[id] = crypto.NewXAES(key)
	}
	return k
}

// crashFile is what the parent knows of a file.
type crashFile struct {
	content []byte
	renamed bool
	pending *crashOp
}

// after returns content and name with the operation done.
func (f *crashFile) after(o *crashOp) (content []byte, renamed bool) {
	content, renamed = bytes.Clone(f.content), f.renamed
	switch o.kind {
	case 'W':
		if need := o.off + o.n; need > len(content) {
			content = append(content, make([]byte, need-len(content))...)
		}
		copy(content[o.off:], pattern(o.n, o.seed))
	case 'T':
		if o.off <= len(content) {
			content = content[:o.off]
		} else {
			content = append(content, make([]byte, o.off-len(content))...)
		}
	case 'R':
		renamed = !renamed
	}
	return content, renamed
}

func TestKillingTheWriterLosesAndTearsNothing(t *testing.T) {
	b := newBenchWith(t, ModeFile, fixedKMS())
	v := b.open()
	files := make([]crashFile, crashFiles)
	for i := range files {
		createFile(t, v.Root(), crashName(i, false), nil)
	}
	b.close(v)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	total, pending := 0, 0
	for round := range *crashRounds {
		total += crashRound(t, b, files, seed+uint64(round), time.Duration(20+rng.IntN(120))*time.Millisecond)
		for i := range files {
			if files[i].pending != nil {
				pending++
			}
		}
		checkAfterCrash(t, b, files, round)
	}
	t.Logf("%d operations acknowledged, %d cut short", total, pending)
	if total == 0 || pending == 0 {
		t.Error("the writer was never killed in the middle of its work")
	}
}

// crashRound lets a child write for a while and kills it; it returns how many
// operations were acknowledged.
func crashRound(t *testing.T, b *bench, files []crashFile, seed uint64, life time.Duration) (acked int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+b.dir, crashEnv+"_STATE="+b.state, fmt.Sprintf("%s_SEED=%d", crashEnv, seed))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		once.Do(func() { time.AfterFunc(life, func() { _ = cmd.Process.Kill() }) })
		line := sc.Text()
		switch line[0] {
		case 'B':
			op, err := parseCrashOp(line[2:])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			files[op.file].pending = &op
		case 'A':
			i, err := strconv.Atoi(line[2:])
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			f := &files[i]
			f.content, f.renamed = f.after(f.pending)
			f.pending = nil
			acked++
		default:
			t.Fatalf("the writer failed: %s", line)
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return acked
}

// checkAfterCrash opens the volume and compares: each file is under its old or
// its new name, has its old or its new size, and each block is old or new.
func checkAfterCrash(t *testing.T, b *bench, files []crashFile, round int) {
	t.Helper()
	v := b.open()
	defer b.close(v)
	if v.relaxed {
		t.Fatal("seals are relaxed after a mere kill")
	}
	for i := range files {
		f := &files[i]
		next, nextName := f.content, f.renamed
		if f.pending != nil {
			next, nextName = f.after(f.pending)
		}
		n, _, err := v.Root().Lookup(crashName(i, nextName))
		if errors.Is(err, unix.ENOENT) && nextName != f.renamed {
			nextName = f.renamed
			n, _, err = v.Root().Lookup(crashName(i, f.renamed))
		}
		if err != nil {
			t.Fatalf("round %d, file %d: %v (pending %v)", round, i, err, f.pending)
		}
		got, err := tryReadAll(n)
		if err != nil {
			t.Fatalf("round %d, file %d: %v (pending %v)", round, i, err, f.pending)
		}
		if len(got) != len(f.content) && len(got) != len(next) {
			t.Fatalf("round %d, file %d: size %d, want %d or %d (pending %v)", round, i, len(got), len(f.content), len(next), f.pending)
		}
		for off := 0; off < len(got); off += crypto.BlockSize {
			block := got[off:min(len(got), off+crypto.BlockSize)]
			if !bytes.Equal(block, blockOf(f.content, off, len(block))) && !bytes.Equal(block, blockOf(next, off, len(block))) {
				t.Fatalf("round %d, file %d: block %d is neither old nor new (pending %v)", round, i, off/crypto.BlockSize, f.pending)
			}
		}
		checkSeal(t, n)
		f.content, f.renamed, f.pending = got, nextName, nil
	}
}

// blockOf is content[off:off+n] with zeros where it ends before.
func blockOf(content []byte, off, n int) []byte {
	out := make([]byte, n)
	if off < len(content) {
		copy(out, content[off:])
	}
	return out
}
