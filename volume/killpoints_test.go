package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Every operation is killed before, after and in the middle of each change that
// it makes on the backing directory. The process does not die for it: from that
// instant on no call has an effect, and the redo slots, which are memory, are
// put back to what they held then.

// death says where: at the change number at, counted from 1.
type death struct {
	at   int
	when int // beforeChange and so on
}

func (d death) String() string {
	return fmt.Sprintf("killed %s change %d", [...]string{"before", "after", "a page into", "a page before the end of"}[d.when], d.at)
}

const (
	beforeChange = iota
	afterChange
	firstPage // of a write, which a signal can end after any page
	lastPage
	deaths
)

// killer is a tap's through that ends the volume's life at one instant.
type killer struct {
	death
	dir string // backing directory

	mu      sync.Mutex
	changes int
	died    bool
	buried  bool
	slots   map[string][]byte // redo slots at that instant
}

func (k *killer) through(c call, do func(int) error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.died {
		if c.op == "close" && !k.buried {
			return do(0)
		}
		return unix.EIO
	}
	if c.changes {
		k.changes++
	}
	if !c.changes || k.changes != k.at {
		switch c.op { // nothing that a killed process leaves depends on these
		case "fsync", "fdatasync", "syncfs":
			return nil
		}
		return do(c.bytes)
	}
	switch k.when {
	case afterChange:
		_ = do(c.bytes)
	case firstPage, lastPage:
		first, last := (c.off+4096)&^4095, (c.off+int64(c.bytes)-1)&^4095
		if c.op != "pwrite" || first > last || first == last && k.when == lastPage {
			return do(c.bytes) // there is no such instant
		}
		end := first
		if k.when == lastPage {
			end = last
		}
		_ = do(int(end - c.off))
	}
	k.died = true
	k.slots = map[string][]byte{}
	files, _ := filepath.Glob(filepath.Join(k.dir, metaDir, "redo", "*"))
	for _, f := range files {
		k.slots[f], _ = os.ReadFile(f)
	}
	return unix.EIO
}

// bury clears away what a killed process has no longer.
func (k *killer) bury(t *testing.T, v *Volume) {
	t.Helper()
	v.cancel()
	v.ahead.close()
	v.tasks.Wait()
	for _, n := range v.pinned.all() {
		n.Forget()
	}
	v.reaper.mu.Lock()
	v.reaper.done = true
	v.reaper.queue = nil
	if v.reaper.timer != nil {
		v.reaper.timer.Stop()
	}
	v.reaper.mu.Unlock()
	v.stopFollowing()
	v.redo.close()
	v.session.abandon()
	v.release()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.buried = true
	for f, b := range k.slots {
		if now, err := os.ReadFile(f); err != nil || bytes.Equal(now, b) {
			continue
		}
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// store is the Backing of an operation.
func (o *operation) store() Backing {
	if o.user {
		return userStore{}
	}
	return System{}
}

// withTap opens a volume whose calls all go through what is set with it.
func withTap(k *tap) func(*Options) { return func(o *Options) { o.Backing = k } }

// idle is a tap's through while nothing is to happen.
func idle(c call, do func(int) error) error {
	switch c.op {
	case "fsync", "fdatasync", "syncfs":
		return nil
	}
	return do(c.bytes)
}

// emptied removes everything from a volume.
func emptied(t *testing.T, v *Volume) {
	t.Helper()
	for _, name := range list(t, v.Root()) {
		n := lookup(t, v.Root(), name)
		if n.IsDir() {
			rwx := uint32(0o700)
			must(n.SetAttr(t.Context(), Change{Mode: &rwx}))(t)
		}
		removeTree(t, v.Root(), name)
		n.Forget()
	}
	v.reaper.flush()
}

// outcome runs an operation as it is and returns what is seen before and after,
// and how many changes it makes.
func (o *operation) outcome(t *testing.T, b *bench) (old, new map[string]thing, changes int) {
	t.Helper()
	k := &tap{Backing: o.store(), through: idle}
	v := b.open(withTap(k))
	s := o.set(t, v)
	old = seen(t, v)
	emptied(t, v)
	s = o.set(t, v)
	count := &killer{dir: b.dir}
	k.through = count.through
	if err := o.run(s); err != nil {
		t.Fatalf("%s: %v", o.name, err)
	}
	k.through = idle
	new = seen(t, v)
	emptied(t, v)
	b.close(v)
	return old, new, count.changes
}

func TestAnOperationKilledAtAnyInstantIsDoneOrNot(t *testing.T) {
	kills, finished := 0, 0
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			b := newBench(t, ModeVolume)
			old, new, changes := o.outcome(t, b)
			for at := 1; at <= changes; at++ {
				for when := range deaths {
					d := death{at, when}
					reached, made, err := o.die(t, b, d, old, new)
					if err != nil {
						t.Errorf("%v: %v", d, err)
						b = newBench(t, ModeVolume) // what is left must not show twice
					}
					if !reached {
						continue
					}
					kills++
					if made {
						finished++
					}
				}
			}
		})
	}
	t.Logf("%d kills; after %d of them the next mount finished something", kills, finished)
	if finished == 0 {
		t.Error("there was nothing to finish")
	}
}

// die kills the operation there and looks at what the next mount makes of it.
// It is not reached where a write has too few pages to end between them.
func (o *operation) die(t *testing.T, b *bench, d death, old, new map[string]thing) (reached, finished bool, err error) {
	t.Helper()
	k := &tap{Backing: o.store(), through: idle}
	v := b.open(withTap(k))
	s := o.set(t, v)
	kill := &killer{death: d, dir: b.dir}
	k.through = kill.through
	rerr := o.run(s)
	k.through = kill.through
	if !kill.died {
		k.through = idle
		if rerr != nil {
			err = rerr
		}
		emptied(t, v)
		b.close(v)
		return false, false, err
	}
	kill.bury(t, v)
	b.log.Reset()
	v = b.open(withTap(&tap{Backing: o.store(), through: idle}))
	if v.relaxed {
		t.Error("seals are relaxed after a mere kill")
	}
	finished = !strings.Contains(b.log.String(), "changes_finished=0")
	left, _ := leftovers(t, b, v)
	for _, l := range left {
		if o.mayLeave == "" || !strings.Contains(l, o.mayLeave) {
			err = errors.Join(err, fmt.Errorf("left: %s", l))
		}
	}
	err = errors.Join(err, agree(seen(t, v), old, new, o.steps))
	if err == nil {
		emptied(t, v)
	}
	b.close(v)
	return true, finished, err
}
