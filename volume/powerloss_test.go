package volume

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	powerSeed     = flag.Uint64("powerloss.seed", 1, "seed of the power loss tests; 0 draws one")
	powerSteps    = flag.Int("powerloss.steps", 20, "random operations before the power is lost, after those that are always the same")
	powerStates   = flag.Int("powerloss.states", 60, "sampled states in each configuration")
	powerAll      = flag.Bool("powerloss.all", false, "every prefix of the history besides, not one in twelve")
	powerBarriers = flag.Bool("powerloss.barriers", false, "leave out every barrier, one after the other, not some")
)

// powerLoss is one configuration of the test.
type powerLoss struct {
	mode   KeyMode
	strict bool
}

func (p powerLoss) String() string {
	if p.strict {
		return string(p.mode) + ", strict"
	}
	return string(p.mode)
}

// record runs the load and returns it with its history. lies are barriers that the
// code is to be without.
func (p powerLoss) record(t *testing.T, seed uint64, steps int, lies func(class string) bool) (*crashLoad, *history) {
	b := newBenchIn(t, fastPlace(t), p.mode, newFakeKMS())
	l := newCrashLoad(b, seed, func(o *Options) { o.Strict = p.strict }, lies)
	l.scripted()
	for range steps {
		l.step()
	}
	quietPool(l.v)
	l.rec.now()
	l.rec.stop()
	t.Cleanup(func() { b.close(l.v) })
	return l, newHistory(l.rec)
}

// try looks at one prefix in so many, at none with 0, and at sampled states. Of all
// these, one in four is settled and mounted again, and in one in 32 the power is lost
// a second time meanwhile.
func (l *crashLoad) try(h *history, seed uint64, strict bool, every, sampled int) verdict {
	place := fastPlace(l.t)
	defer os.RemoveAll(place)
	type job struct {
		k     int
		model crashModel
		seed  uint64
	}
	jobs := make(chan job)
	var sum verdict
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				s := h.moment(j.k).crash(j.model, j.seed)
				dir := filepath.Join(place, fmt.Sprint(w))
				var v *verdict
				if j.seed%32 == 1 {
					v = l.cutAgain(s, dir, strict, 10)
				} else {
					v = l.checkState(s, dir, strict, j.seed%4 == 0)
				}
				for i, what := range v.violations {
					v.violations[i] = fmt.Sprintf("cut before event %d (%s; state seed %d): %s", j.k, j.model, j.seed, what)
				}
				mu.Lock()
				sum.add(v)
				mu.Unlock()
			}
		})
	}
	if every > 0 {
		for k := 1; k <= len(h.log); k += every {
			jobs <- job{k, crashPrefix, uint64(k)}
		}
		bare := append(slices.Clone(h.barriers[1:]), len(h.log)) // in between, nothing becomes durable
		for i := 0; i < len(bare); i += every {
			jobs <- job{bare[i], crashBare, uint64(bare[i])}
		}
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	for range sampled {
		// Just before a barrier is done, most is at stake.
		k := 1 + rng.IntN(len(h.log))
		if at := pickOne(rng, h.barriers); rng.IntN(2) == 0 && at > 0 {
			k = at
		}
		jobs <- job{k, crashExt4 + crashModel(rng.IntN(2)), rng.Uint64()}
	}
	close(jobs)
	wg.Wait()
	return sum
}

// fastPlace is a directory, in memory where that takes user attributes.
func fastPlace(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "kmsfs-test-")
	if err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		if unix.Setxattr(dir, "user.kmsfs.test", []byte("x"), 0) == nil {
			return dir
		}
	}
	return t.TempDir()
}

func drawSeed() uint64 {
	if *powerSeed != 0 {
		return *powerSeed
	}
	return uint64(time.Now().UnixNano())
}

func TestWhatWasSyncedSurvivesAPowerCutAtAnyMoment(t *testing.T) {
	for _, p := range []powerLoss{{ModeFile, false}, {ModeVolume, false}, {ModeFile, true}, {ModeVolume, true}} {
		t.Run(p.String(), func(t *testing.T) {
			seed := drawSeed()
			t.Logf("-powerloss.seed %d", seed)
			l, h := p.record(t, seed, *powerSteps, nil)
			every := 12
			if *powerAll {
				every = 1
			}
			got := l.try(h, seed, p.strict, every, *powerStates)
			for i, v := range got.violations {
				if i == 20 {
					t.Errorf("and %d more", len(got.violations)-i)
					break
				}
				t.Error(v)
			}
			t.Logf("%d events, %d barriers %v", len(h.log), total(l.rec.seen), l.rec.seen)
			t.Logf("%d states, %d of them settled and mounted again, %d files and %d blocks read: %d violations, %d blocks that were being overwritten and %d that never were synced lost",
				got.states, got.settled, got.files, got.blocks, len(got.violations), got.exceptions, got.unsynced)
			if p.strict == (got.exceptions > 0) {
				t.Errorf("%d blocks lost that were being overwritten, strict: %v", got.exceptions, p.strict)
			}
		})
	}
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}
