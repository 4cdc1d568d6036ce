package volume

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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
	b *bench

	mu      sync.Mutex
	changes int
	died    bool
	buried  bool
	kept    []*fileCopy // redo slots and host state at that instant
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
	k.die()
	return unix.EIO
}

// die ends the life at this instant. The caller holds mu.
func (k *killer) die() {
	k.died = true
	slots, _ := filepath.Glob(filepath.Join(k.b.dir, metaDir, "redo", "*"))
	host, _ := filepath.Glob(filepath.Join(k.b.state, "*.json"))
	for _, f := range append(slots, host...) {
		if st, err := os.Lstat(f); err != nil || !st.Mode().IsRegular() {
			continue // planted
		}
		k.kept = append(k.kept, copyFile(f))
	}
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
	v.reaper.queue = nil // nothing is in it that a killed mount would do
	if v.reaper.timer != nil {
		v.reaper.timer.Stop()
	}
	v.reaper.mu.Unlock()
	v.stopFollowing()
	v.redo.close()
	v.session.abandon()
	v.release()
	k.restore(t)
}

// restore puts back what a killed process could not have changed any more.
func (k *killer) restore(t testing.TB) {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.buried = true
	for _, f := range k.kept {
		f.restore(t)
	}
	k.kept = nil
}

// fileCopy is what a file held. Redo slots are mebibytes, of which few are written.
type fileCopy struct {
	path  string
	size  int64
	parts []filePart
}

type filePart struct {
	off   int64
	bytes []byte
}

func copyFile(path string) *fileCopy {
	c := &fileCopy{path: path}
	f, err := os.Open(path)
	if err != nil {
		return c
	}
	defer f.Close()
	c.size, _ = f.Seek(0, io.SeekEnd)
	for end := int64(0); ; {
		off, err := f.Seek(end, unix.SEEK_DATA)
		if err != nil { // there is no more
			return c
		}
		if end, err = f.Seek(off, unix.SEEK_HOLE); err != nil {
			return c
		}
		p := filePart{off, make([]byte, end-off)}
		_, _ = f.ReadAt(p.bytes, off)
		c.parts = append(c.parts, p)
	}
}

func (c *fileCopy) restore(t testing.TB) {
	t.Helper()
	if slices.EqualFunc(c.parts, copyFile(c.path).parts, func(a, b filePart) bool { return a.off == b.off && bytes.Equal(a.bytes, b.bytes) }) {
		return
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range c.parts {
		must(f.WriteAt(p.bytes, p.off))(t)
	}
	must(0, f.Truncate(c.size))(t)
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
	o.set(t, v)
	old = seen(t, v)
	emptied(t, v)
	s := o.set(t, v)
	count := &killer{b: b}
	k.turn(count.through)
	if err := o.run(s); err != nil {
		t.Fatalf("%s: %v", o.name, err)
	}
	k.turn(idle)
	new = seen(t, v)
	emptied(t, v)
	b.close(v)
	return old, new, count.changes
}

var killAll = flag.Bool("kill.all", false, "kill each operation at every instant, and the next mount, too, at each change with which it repairs")

func TestAnOperationKilledAtAnyInstantIsDoneOrNot(t *testing.T) {
	kills, finished, again := 0, 0, 0
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
			old, new, changes := o.outcome(t, b)
			instants := sampleOf(o.name, *killAll, 5, 11)
			for at := 1; at <= changes; at++ {
				for when := range deaths {
					d := death{at, when}
					if !instants.takes() {
						continue
					}
					r := o.die(t, b, old, new, d)
					if !r.reached {
						continue
					}
					kills++
					if r.finished {
						finished++
						for second := 1; second <= r.changes && !t.Failed(); second++ {
							if *killAll || (kills+second)%23 == 0 {
								o.die(t, b, old, new, d, death{second, afterChange})
								again++
							}
						}
					}
					if t.Failed() {
						return
					}
				}
			}
		})
	}
	t.Logf("%d kills; after %d of them the next mount repaired something, and was itself killed at it %d times", kills, finished, again)
	if finished == 0 || again == 0 {
		t.Error("there was nothing to repair")
	}
}

// aftermath is what a kill came to.
type aftermath struct {
	reached  bool // else the operation ended before: a write has too few pages to end between them
	finished bool // the next mount had something to finish or undo
	changes  int  // that it made until it served
}

// die kills the operation at the first of deaths, each mount that follows at the
// next one, and looks at what the last mount makes of it.
func (o *operation) die(t *testing.T, b *bench, old, new map[string]thing, deaths ...death) (r aftermath) {
	t.Helper()
	k := &tap{Backing: o.store(), through: idle}
	v := b.open(withTap(k))
	s := o.set(t, v)
	kill := &killer{death: deaths[0], b: b}
	k.turn(kill.through)
	if err := o.run(s); !kill.died {
		if err != nil {
			t.Errorf("%v: %v", deaths, err)
		}
		k.turn(idle)
		emptied(t, v)
		b.close(v)
		return r
	}
	kill.bury(t, v)
	for _, d := range deaths[1:] {
		kill = &killer{death: d, b: b}
		if v, err := b.tryOpen(withTap(&tap{Backing: o.store(), through: kill.through})); err == nil {
			kill.died = true // it was the last change, in the background
			kill.bury(t, v)
		} else {
			kill.restore(t)
		}
	}
	b.log.Reset()
	count := &killer{b: b}
	v = b.open(withTap(&tap{Backing: o.store(), through: count.through}))
	r = aftermath{reached: true, changes: count.changes, finished: !strings.Contains(b.log.String(), "changes_finished=0 operations_settled=0")}
	if v.relaxed {
		t.Error("seals are relaxed after a mere kill")
	}
	left, _ := leftovers(t, b, v)
	for _, l := range left {
		if o.mayLeave == "" || !strings.Contains(l, o.mayLeave) {
			t.Errorf("%v: left: %s", deaths, l)
		}
	}
	if err := agree(seen(t, v), old, new, o.steps); err != nil {
		t.Errorf("%v: %v", deaths, err)
	}
	if t.Failed() {
		t.Logf("the log: %s", b.log)
	}
	emptied(t, v)
	b.close(v)
	return r
}

func TestAMountKilledAtItsBeginningOrEndLosesNothing(t *testing.T) {
	b := newBenchIn(t, fastPlace(t), ModeFile, newFakeKMS())
	v := b.open(withTap(&tap{Backing: System{}, through: idle}))
	o := operation{prepare: func(s *stage) {
		s.dir("a")
		s.file("a/f", 5000)
		s.file("b", 5000)
	}}
	o.set(t, v)
	want := seen(t, v)
	b.close(v)
	check := func(what string, at int, v *Volume) {
		t.Helper()
		if err := agree(seen(t, v), want, want, false); err != nil || v.relaxed {
			t.Fatalf("killed at change %d of its %s: %v, relaxed %v", at, what, err, v.relaxed)
		}
		if left, _ := leftovers(t, b, v); len(left) > 0 {
			t.Errorf("killed at change %d of its %s: left %q", at, what, left)
		}
	}
	kills := 0
	for at, more := 1, true; more; at++ {
		more = false
		kill := &killer{death: death{at, afterChange}, b: b}
		if v, err := b.tryOpen(withTap(&tap{Backing: System{}, through: kill.through})); err != nil {
			kill.restore(t)
			more = true
			kills++
		} else {
			kill.died = true
			kill.bury(t, v)
		}
		k := &tap{Backing: System{}, through: idle}
		v := b.open(withTap(k))
		check("beginning", at, v)
		n := createFile(t, v.Root(), "removed", pattern(5000, 1)) // its sidecar goes at the end
		quietPool(v)
		if err := v.Root().Unlink("removed"); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		kill = &killer{death: death{at, afterChange}, b: b}
		k.turn(kill.through)
		_ = v.Close()
		if kill.died {
			more = true
			kills++
		}
		kill.died = true
		kill.restore(t)
		v = b.open(withTap(&tap{Backing: System{}, through: idle}))
		check("end", at, v)
		b.close(v)
	}
	t.Logf("%d kills", kills)
	if kills < 10 {
		t.Error("it was hardly killed")
	}
}
