package volume

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/slow"
)

// refusingKMS refuses Decrypt where it is told to.
type refusingKMS struct {
	*fakeKMS
	mu     sync.Mutex
	refuse func(file string) error // nil refuses nothing
}

func (k *refusingKMS) setRefuse(f func(file string) error) {
	k.mu.Lock()
	k.refuse = f
	k.mu.Unlock()
}

func (k *refusingKMS) Decrypt(ctx context.Context, keyID string, wrapped []byte, ec kmsprovider.Context) ([]byte, error) {
	k.mu.Lock()
	refuse := k.refuse
	k.mu.Unlock()
	if refuse != nil {
		if err := refuse(ec["kmsfs:file"]); err != nil {
			return nil, err
		}
	}
	return k.fakeKMS.Decrypt(ctx, keyID, wrapped, ec)
}

// slowly runs a test in a bubble of synctest, whose clock moves only when all
// wait, on a volume of a KMS that takes delay.
func slowly(t *testing.T, mode KeyMode, delay time.Duration, test func(t *testing.T, b *slowBench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &slowBench{bench: newBench(t, mode), delay: delay}
		b.refusing = &refusingKMS{fakeKMS: b.kms}
		b.slow = slow.New(b.refusing, delay)
		test(t, b)
	})
}

type slowBench struct {
	*bench
	refusing *refusingKMS
	slow     *slow.Provider
	delay    time.Duration
}

func (b *slowBench) open() *Volume {
	b.t.Helper()
	return b.bench.open(func(o *Options) {
		o.Providers = kmsprovider.NewRegistry()
		o.Providers.Register("local", func(context.Context) (kmsprovider.Provider, error) { return b.slow, nil })
	})
}

// decrypts counts the calls that a function makes, also those that come after
// it, and how many round trips to the KMS it waited for.
func (b *slowBench) decrypts(call func()) (calls, waits int) {
	b.t.Helper()
	before, began := b.kms.count("Decrypt"), time.Now()
	call()
	waits = int(time.Since(began) / b.delay)
	time.Sleep(b.delay) // those under way
	synctest.Wait()
	return b.kms.count("Decrypt") - before, waits
}

// fill makes a tree of dirs directories of 1 to 9 files, some empty, some with a
// second name, and returns the number of files with content.
func fill(t *testing.T, v *Volume, dirs int) (files int) {
	t.Helper()
	parents := []*Node{v.Root()}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range dirs {
		d, _, err := parents[r.IntN(len(parents))].Mkdir(fmt.Sprintf("dir%d", i), 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		parents = append(parents, d)
		for j := range 1 + r.IntN(9) {
			n := createFile(t, d, fmt.Sprintf("file%d", j), pattern(j*100, byte(i)))
			if j > 0 {
				files++
			}
			if j == 3 {
				if _, err := d.Link(n, "second name"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, _, err := d.Symlink("symlink", "file0", Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// visit calls f for every file below dir in the order of tar.
func visit(t *testing.T, dir *Node, f func(*Node)) {
	t.Helper()
	for _, name := range list(t, dir) {
		n := lookup(t, dir, name)
		switch {
		case n.IsDir():
			visit(t, n, f)
		case n.IsRegular():
			f(n)
		}
	}
}

// read reads a file as a program does: an empty one is not asked for.
func read(t *testing.T, n *Node) {
	t.Helper()
	if a, err := n.Attr(); err != nil {
		t.Fatal(err)
	} else if a.Size > 0 {
		readAll(t, n)
	}
}

func TestAColdReadOfATreeIsOneDecryptForEachFileAndFewAreWaitedFor(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		files := fill(t, v, 100)
		b.close(v)
		v = b.open()
		visited := 0
		b.slow.Peak()
		calls, waits := b.decrypts(func() {
			visit(t, v.Root(), func(n *Node) {
				read(t, n)
				visited++
				time.Sleep(300 * time.Microsecond)
			})
		})
		spent := waits - visited*300/10000 // what was not slept
		peak := b.slow.Peak()
		t.Logf("%d files: %d calls, %d round trips waited for, %d calls under way", files, calls, spent, peak)
		if calls != files {
			t.Errorf("%d Decrypt for %d files", calls, files)
		}
		if spent > 20 {
			t.Errorf("waited for %d round trips", spent)
		}
		if peak > aheadLimit+1 {
			t.Errorf("%d calls under way", peak)
		}
		if s := v.Stats(); s.InVain != 0 || s.Ahead < uint64(files)*9/10 {
			t.Errorf("%d keys unwrapped ahead were used, %d were not", s.Ahead, s.InVain)
		}
		calls, _ = b.decrypts(func() { visit(t, v.Root(), func(n *Node) { read(t, n) }) })
		if calls != 0 {
			t.Errorf("%d Decrypt for a warm read", calls)
		}
	})
}

func TestReadingInOneDirectoryUnwrapsNothingInOthers(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		for _, name := range []string{"a", "b", "c"} {
			d, _, err := v.Root().Mkdir(name, 0o755, Owner{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				createFile(t, d, fmt.Sprint(i), []byte("content"))
			}
		}
		for _, name := range []string{"a", "b", "c"} {
			b.close(v)
			v = b.open()
			calls, waits := b.decrypts(func() { visit(t, lookup(t, v.Root(), name), func(n *Node) { read(t, n) }) })
			if calls != 20 || waits > 9 {
				t.Errorf("%d Decrypt for the 20 files of %s, %d waited for", calls, name, waits)
			}
		}
	})
}

func TestFilesReadInTheOrderOfTheirNamesAreForetoldToo(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		const files = 200
		for i := range files {
			createFile(t, v.Root(), fmt.Sprintf("%03d", i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		calls, waits := b.decrypts(func() {
			for i := range files {
				read(t, lookup(t, v.Root(), fmt.Sprintf("%03d", i)))
			}
		})
		t.Logf("%d files: %d calls, %d round trips waited for", files, calls, waits)
		if calls != files || waits > 20 {
			t.Errorf("%d Decrypt for %d files, %d waited for", calls, files, waits)
		}
	})
}

func TestNothingIsUnwrappedForListingsAndSingleFiles(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		for i := range 100 {
			createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
		}
		b.close(v)
		v = b.open()
		var names []string
		calls, _ := b.decrypts(func() {
			names = list(t, v.Root())
			visit(t, v.Root(), func(n *Node) {
				if _, err := n.Attr(); err != nil {
					t.Fatal(err)
				}
			})
		})
		if calls != 0 {
			t.Errorf("%d Decrypt for find and stat", calls)
		}
		// Some files of which none follows another one, in neither order.
		sorted := slices.Sorted(slices.Values(names))
		after := make(map[string]bool)
		count := 0
		calls, _ = b.decrypts(func() {
			for _, name := range names {
				if after[name] {
					continue
				}
				for _, order := range [][]string{names, sorted} {
					if i := slices.Index(order, name) + 1; i < len(order) {
						after[order[i]] = true
					}
				}
				read(t, lookup(t, v.Root(), name))
				count++
			}
		})
		if calls != count || count < 10 {
			t.Errorf("%d Decrypt for %d files that do not follow each other", calls, count)
		}
	})
}

func TestCallsAheadThatAreInVainAreFew(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, keep := range map[string]func(i int) bool{
		"a program that stops after 50 files": func(i int) bool { return i < 50 },
		"one that reads every second file":    func(i int) bool { return i%2 == 0 },
		"one that leaves out every tenth":     func(i int) bool { return i%10 != 9 },
		"one that reads at random":            func(int) bool { return r.IntN(2) == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
				v := b.open()
				for i := range 300 {
					createFile(t, v.Root(), fmt.Sprint(i), []byte("content"))
				}
				b.close(v)
				v = b.open()
				i, wanted := 0, 0
				calls, _ := b.decrypts(func() {
					visit(t, v.Root(), func(n *Node) {
						if keep(i) {
							read(t, n)
							wanted++
						}
						i++
						time.Sleep(300 * time.Microsecond)
					})
				})
				time.Sleep(2 * aheadKeep)
				synctest.Wait()
				vain := calls - wanted
				t.Logf("%d files read, %d calls in vain", wanted, vain)
				if vain > aheadLimit+wanted/4 {
					t.Errorf("%d calls in vain for %d files read", vain, wanted)
				}
				if s := v.Stats(); int(s.InVain) != vain || s.CachedKeys != wanted {
					t.Errorf("%d calls in vain, %d counted; %d keys are kept for %d files", vain, s.InVain, s.CachedKeys, wanted)
				}
			})
		})
	}
}

func TestAKMSThatAnswersAtOnceIsNotAskedAhead(t *testing.T) {
	slowly(t, ModeFile, aheadWorth/2, func(t *testing.T, b *slowBench) {
		v := b.open()
		files := fill(t, v, 20)
		b.close(v)
		v = b.open()
		calls, _ := b.decrypts(func() { visit(t, v.Root(), func(n *Node) { read(t, n) }) })
		if s := v.Stats(); calls != files || s.Ahead+s.InVain != 0 {
			t.Errorf("%d calls, %d and %d ahead", calls, s.Ahead, s.InVain)
		}
	})
}

func TestKeyModeVolumeAsksNothing(t *testing.T) {
	slowly(t, ModeVolume, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		generated := b.kms.count("GenerateDataKey")
		v := b.open()
		fill(t, v, 20)
		b.close(v)
		v = b.open()
		calls, _ := b.decrypts(func() { visit(t, v.Root(), func(n *Node) { read(t, n) }) })
		if calls != 0 || b.kms.count("GenerateDataKey") != generated {
			t.Errorf("%d Decrypt, %d GenerateDataKey", calls, b.kms.count("GenerateDataKey")-generated)
		}
	})
}

// Many programs at once: each file is unwrapped once, whoever is first.
func TestProgramsSideBySideCauseOneDecryptForEachFile(t *testing.T) {
	slowly(t, ModeFile, 10*time.Millisecond, func(t *testing.T, b *slowBench) {
		v := b.open()
		files := fill(t, v, 60)
		b.close(v)
		v = b.open()
		var group sync.WaitGroup
		calls, _ := b.decrypts(func() {
			for i := range 4 {
				group.Go(func() {
					var nodes []*Node
					visit(t, v.Root(), func(n *Node) { nodes = append(nodes, n) })
					if i == 3 {
						slices.Reverse(nodes)
					}
					for _, n := range nodes {
						read(t, n)
						time.Sleep(time.Duration(100*(i+1)) * time.Microsecond)
					}
				})
			}
			group.Wait()
		})
		if s := v.Stats(); calls != files+int(s.InVain) || int(s.InVain) > aheadLimit+files/4 {
			t.Errorf("%d Decrypt for %d files, %d in vain", calls, files, s.InVain)
		}
	})
}
