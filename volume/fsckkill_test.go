package volume

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

var fsckAll = flag.Bool("fsck.all", false, "interrupt a repair at each change that it makes, in each way, not now and then")

// interruption is how a repair ends at the change number at.
type interruption struct {
	at  int
	how int // as death.when, or cancelled
}

// cancelled: whoever asked for the repair does not want it any more, as after SIGINT.
const cancelled = deaths

func (i interruption) String() string {
	if i.how == cancelled {
		return fmt.Sprintf("cancelled at change %d", i.at)
	}
	return death{i.at, i.how}.String()
}

// A repair that is killed or cancelled at any change that it makes loses nothing,
// and the next one comes to what it would have come to.
func TestARepairThatIsInterruptedAnywhereLosesNothing(t *testing.T) {
	tried, all := 0, 0
	for _, c := range damageCases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			b.store = &tap{Backing: System{}, through: idle} // that does not wait for the disk
			intact, at := b.furnished()
			c.do(t, b, at)
			v := b.open()
			readable := contents(t, v)
			b.close(v)
			saved := b.save()
			for _, i := range interruptions(t, b) {
				if all++; !*fsckAll && all%9 != 0 {
					continue
				}
				b.load(saved)
				if !interrupt(b, i) {
					continue // not every repair makes as many changes
				}
				tried++
				b.mustFsck(FsckOptions{Repair: true})
				c.wantSettled(t, b.mustFsck(FsckOptions{Repair: true}))
				c.wantNothingLost(t, b, intact, readable)
				if t.Failed() {
					t.Fatal(i)
				}
			}
		})
	}
	t.Logf("%d interruptions of %d", tried, all)
	if tried < 50 {
		t.Error("it was hardly interrupted")
	}
}

// interruptions lists how the repair of a volume can be interrupted. That of its
// opening alone is another test's.
func interruptions(t *testing.T, b *bench) (all []interruption) {
	opening, count := &killer{b: b}, &killer{b: b}
	b.close(b.open(withTap(&tap{Backing: System{}, through: opening.through})))
	var mu sync.Mutex // keys are made ahead meanwhile
	through := func(c call, do func(int) error) error {
		mu.Lock()
		defer mu.Unlock()
		if c.changes {
			at := count.changes + 1
			all = append(all, interruption{at, afterChange}, interruption{at, cancelled})
			if c.op == "pwrite" && (c.off+4096)&^4095 <= (c.off+int64(c.bytes)-1)&^4095 {
				all = append(all, interruption{at, firstPage})
			}
		}
		return count.through(c, do)
	}
	if _, err := b.fsck(FsckOptions{Repair: true, Jobs: 1}, withTap(&tap{Backing: System{}, through: through})); err != nil {
		t.Fatal(err)
	}
	if count.changes <= opening.changes {
		return nil
	}
	return all
}

// interrupt begins a repair, and tells whether it was interrupted.
func interrupt(b *bench, i interruption) bool {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := b.options()
	kill := &killer{death: death{i.at, i.how}, b: b}
	changes := 0
	o.Backing = &tap{Backing: System{}, through: func(c call, do func(int) error) error {
		if i.how != cancelled {
			return kill.through(c, do)
		}
		kill.mu.Lock()
		if c.changes {
			if changes++; changes == i.at {
				cancel()
			}
		}
		kill.mu.Unlock()
		return idle(c, do)
	}}
	_, _ = Fsck(ctx, b.dir, o, FsckOptions{Repair: true, Jobs: 1})
	if kill.died {
		kill.restore(b.t)
	}
	return kill.died || ctx.Err() != nil
}

// save keeps what the volume and its host state are.
func (b *bench) save() (saved string) {
	saved = b.t.TempDir()
	copyTree(b.t, b.dir, filepath.Join(saved, "backing"))
	copyTree(b.t, b.state, filepath.Join(saved, "state"))
	return saved
}

// load puts back what save kept. The directories stay the same ones.
func (b *bench) load(saved string) {
	b.t.Helper()
	for name, dir := range map[string]string{"backing": b.dir, "state": b.state} {
		entries, err := os.ReadDir(dir)
		ok(b.t, err)
		for _, e := range entries {
			ok(b.t, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
		links := make(map[uint64]string)
		entries, err = os.ReadDir(filepath.Join(saved, name))
		ok(b.t, err)
		for _, e := range entries {
			copyEntry(b.t, filepath.Join(saved, name, e.Name()), filepath.Join(dir, e.Name()), links)
		}
	}
}
