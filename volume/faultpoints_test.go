package volume

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Every operation is run with each of its calls on the backing directory failing,
// once or from then on, with each error that such a call can have.

var faultAll = flag.Bool("fault.all", false, "inject every error at every call, not one error at some calls")

// fault says what fails: the call number at, counted from 1.
type fault struct {
	at      int
	err     error // nil: it does a part of what it is asked for
	lasting bool  // and all calls after it
	// refusing: all changes fail from it on, of which it does a part if it is a write
	// of several pages: a store that is full or has turned read-only.
	refusing bool
}

func (f fault) String() string {
	switch {
	case f.err == nil:
		return fmt.Sprintf("call %d falls short", f.at)
	case f.refusing:
		return fmt.Sprintf("all changes from call %d on, but for its first pages, fail with %v", f.at, f.err)
	case f.lasting:
		return fmt.Sprintf("all calls from %d on fail with %v", f.at, f.err)
	}
	return fmt.Sprintf("call %d fails with %v", f.at, f.err)
}

// faultsOf are the errors of a kind of call.
func faultsOf(c call) []error {
	switch {
	case c.op == "close":
		return []error{unix.EIO, unix.EDQUOT, unix.EINTR}
	case c.op == "pwrite":
		return []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EINTR, nil}
	case c.op == "openat" && c.changes:
		return []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EMFILE, unix.EINTR}
	case c.op == "openat":
		return []error{unix.EIO, unix.EMFILE, unix.EINTR}
	case c.op == "pread":
		return []error{unix.EIO, unix.EINTR, nil}
	case c.op == "fsync", c.op == "fdatasync", c.op == "syncfs":
		return []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EINTR}
	case c.changes:
		return []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.EINTR}
	}
	return []error{unix.EIO, unix.EINTR}
}

// injector is a tap's through that makes calls fail.
type injector struct {
	fault
	mu    sync.Mutex
	calls []call
	hit   bool
}

func (i *injector) through(c call, do func(int) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls = append(i.calls, c)
	n := len(i.calls)
	switch {
	case n == i.at:
	case n > i.at && (i.lasting || i.refusing && c.changes):
	default:
		return idle(c, do)
	}
	i.hit = true
	switch {
	case i.refusing && n == i.at && c.bytes > 4096:
		return do(c.bytes / 2)
	case c.op == "close": // it is closed nevertheless
		_ = do(0)
		return i.err
	case i.err != nil:
		return i.err
	case c.bytes > 1:
		return do(c.bytes / 2)
	}
	return do(c.bytes)
}

func TestAnOperationThatFailsAnywhereSaysSoAndLeavesTheVolumeWhole(t *testing.T) {
	injected, tolerated := map[string]int{}, map[string]int{}
	for _, o := range operations() {
		t.Run(o.name, func(t *testing.T) {
			b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
			old, new, _ := o.outcome(t, b)
			k := &tap{Backing: o.store(), through: idle}
			v := b.open(withTap(k))
			var count *injector
			for range 2 { // the first time it may make a redo slot
				s := o.set(t, v)
				forgetAll(v, s.kept)
				count = &injector{}
				k.turn(count.through)
				if err := o.run(s); err != nil {
					t.Fatal(err)
				}
				k.turn(idle)
				emptied(t, v)
			}
			faults, taken := sampleOf(o.name, *faultAll, 5, 13), 0
			for at, c := range count.calls {
				for how := range 3 {
					lasting, refusing := how == 1, how == 2
					errs := faultsOf(c)
					if refusing && !c.changes {
						continue
					}
					if refusing {
						errs = []error{unix.ENOSPC, unix.EROFS}
					}
					if !*faultAll {
						if !faults.takes() {
							continue
						}
						errs = []error{errs[taken%len(errs)]}
						taken++
					}
					for _, err := range errs {
						if lasting && (err == nil || err == unix.EINTR) {
							continue
						}
						f := fault{at + 1, err, lasting, refusing}
						ok := o.fail(t, b, v, k, f, old, new)
						injected[fmt.Sprint(err)]++
						if ok && err != nil && err != unix.EINTR {
							tolerated[c.op]++
						}
						if t.Failed() {
							t.Logf("at %v, %v", c, f)
							return
						}
					}
				}
			}
			b.close(v)
			v = b.open(withTap(&tap{Backing: o.store(), through: idle}))
			if v.relaxed {
				t.Error("it was no clean end")
			}
		})
	}
	total := 0
	for _, n := range injected {
		total += n
	}
	t.Logf("%d faults: %v; the operation succeeded in spite of them: %v", total, injected, tolerated)
	if total == 0 {
		t.Error("nothing was made to fail")
	}
}

// forgetAll closes all files and directories, but those that are in use.
func forgetAll(v *Volume, kept []*Node) {
	for _, n := range v.descriptors.nodes() {
		if !slices.Contains(kept, n) {
			n.Forget()
		}
	}
}

// timeless is things without their times.
func timeless(things map[string]thing) map[string]thing {
	out := maps.Clone(things)
	for p, x := range out {
		x.moved = false
		out[p] = x
	}
	return out
}

// fail runs the operation with a fault, and again without if it did not happen.
// It tells whether the operation went on in spite of the fault.
func (o *operation) fail(t *testing.T, b *bench, v *Volume, k *tap, f fault, old, new map[string]thing) (ok bool) {
	t.Helper()
	s := o.set(t, v)
	if now := seen(t, v); !reflect.DeepEqual(now, old) {
		t.Fatalf("%v: prepared %v, want %v", f, brief(now), brief(old))
	}
	before, _ := leftovers(t, b, v)
	forgetAll(v, s.kept)
	inject := &injector{fault: f}
	k.turn(inject.through)
	err := o.run(s)
	if f.refusing && !o.user { // to whom a store that takes no chmod does not show everything
		forgetAll(v, s.kept)
		now := look(t, v, false)
		maps.DeleteFunc(now, func(p string, x thing) bool { return x.err != nil && old[p].kind == 0 }) // not made
		err := agreeEach(now, old, new)
		if !o.displaces {
			err = agree(now, old, new, true)
		}
		if err != nil {
			t.Errorf("%v: as long as the store refuses: %v", f, err)
		}
	}
	k.turn(idle)
	if !inject.hit { // what it does is not the same each time
		emptied(t, v)
		return err == nil
	}
	if err != nil && f.err == nil || f.err == unix.EINTR && err != nil {
		t.Errorf("%v: %v", f, err)
	}
	if err != nil && f.err != nil && !errors.Is(err, f.err) && !errors.Is(err, ErrIncomplete) { // its report says what
		t.Errorf("%v: the program is told %v", f, err)
	}
	if err := v.makeAllLate(); err != nil {
		t.Errorf("%v: make late changes: %v", f, err)
	}
	if !v.settleIntents() {
		t.Errorf("%v: something is unsettled", f)
	}
	// Nothing that is remembered may help.
	forgetAll(v, nil)
	now := seen(t, v)
	if err != nil { // it may have moved times, as on a local file system
		now, old, new = timeless(now), timeless(old), timeless(new)
	}
	if err == nil && !o.steps && !reflect.DeepEqual(now, new) {
		t.Errorf("%v: success, but not done: %v, want %v", f, brief(now), brief(new))
	}
	// A write that fails has written some blocks and not others.
	if err := agree(now, old, new, o.steps || err != nil); err != nil {
		t.Errorf("%v: %v", f, err)
	}
	if !f.lasting && !f.refusing {
		after, _ := leftovers(t, b, v)
		for _, l := range after {
			if !slices.Contains(before, l) && err != nil {
				t.Errorf("%v: left: %s", f, l)
			}
		}
	}
	for _, set := range []*slotSet{&v.redo.changes, &v.redo.intents} {
		if n := len(set.all) - len(set.free); n != 0 {
			t.Errorf("%v: %d of %d slots are in use", f, n, len(set.all))
		}
	}
	if err != nil && slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(old))) && !reflect.DeepEqual(now, new) && !t.Failed() {
		if err := o.run(s); err != nil {
			t.Errorf("%v: again: %v", f, err)
		}
		forgetAll(v, nil)
		if now := timeless(seen(t, v)); !reflect.DeepEqual(now, new) {
			t.Errorf("%v: done again: %v, want %v", f, brief(now), brief(new))
		}
	}
	emptied(t, v)
	return err == nil
}
