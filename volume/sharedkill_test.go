package volume

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The same as for one mount, for one of two: the other goes on, or a mount that is not
// shared comes after both. Modes that are widened for an ordinary user are left so.

func TestAnOperationOfASharedMountKilledAtAnyInstantIsDoneOrNot(t *testing.T) {
	kills, ways := 0, [2]int{}
	for _, o := range operations() {
		if o.user {
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
			old, new, _ := o.outcome(t, b)
			old, new = settled(old), settled(new)
			instants := sampleOf(o.name, *killAll, 3, 7)
			reached := true
			for at := 1; reached && !t.Failed(); at++ {
				reached = false
				for when := range deaths {
					if when > afterChange && !instants.takes() && at > 1 {
						continue
					}
					way := kills % 2
					if !o.dieShared(t, b, old, new, death{at, when}, way == 0) {
						continue
					}
					reached = reached || when <= afterChange
					kills++
					ways[way]++
				}
			}
		})
	}
	t.Logf("%d kills, after %d of them the other mount went on, after %d one came that is not shared", kills, ways[0], ways[1])
	if ways[0] < 100 || ways[1] < 100 {
		t.Error("it was hardly killed")
	}
}

// settled is what is seen but for times, which may have moved, and names that were
// listed and then undone.
func settled(things map[string]thing) map[string]thing {
	out := make(map[string]thing)
	for p, x := range things {
		if x.err != unix.ENOENT {
			x.moved = false
			out[p] = x
		}
	}
	return out
}

// visible is what programs see at once: what bears on names alone, the mount that goes
// on settles a little later.
func visible(things map[string]thing) map[string]thing {
	out := make(map[string]thing)
	for p, x := range things {
		x.linked, x.twice = false, false
		out[p] = x
	}
	return out
}

func shown(things map[string]thing, live bool) map[string]thing {
	if live {
		return visible(things)
	}
	return things
}

// dieShared kills an operation of one of two shared mounts, and tells whether it came
// to that.
func (o *operation) dieShared(t *testing.T, b *bench, old, new map[string]thing, d death, live bool) bool {
	t.Helper()
	k := &tap{Backing: o.store(), through: idle}
	other := &tap{Backing: System{}, through: idle}
	quiet := withTap(other)
	one, two := b.host("one", withTap(k)), b.host("two", quiet)
	s := o.set(t, one)
	kill := &killer{death: d, b: b}
	k.turn(kill.through)
	if err := o.run(s); !kill.died {
		if err != nil {
			t.Errorf("%v: %v", d, err)
		}
		k.turn(idle)
		if err := agree(settled(seen(t, two)), new, new, false); err != nil {
			t.Errorf("not killed: %v", err)
		}
		emptied(t, one)
		b.close(one)
		b.close(two)
		return false
	}
	kill.bury(t, one)
	b.log.Reset()
	after := two
	if !live {
		// Closed, it would have settled names.
		dead := &killer{b: b, died: true}
		other.turn(dead.through)
		dead.bury(t, two)
		other.turn(idle)
		after = b.open(quiet)
		if after.relaxed {
			t.Error("seals are relaxed after a mere kill")
		}
	}
	if !live || !o.displaces {
		got := shown(seen(t, after), live)
		if err := agree(settled(got), shown(old, live), shown(new, live), o.steps); err != nil {
			t.Errorf("%v, another goes on %v: %v", d, live, err)
		}
	}
	if live {
		after.shared.sweep()
		if err := agree(settled(seen(t, after)), old, new, o.steps); err != nil {
			t.Errorf("%v, settled: %v", d, err)
		}
	}
	left, _ := leftovers(t, b, after)
	for _, l := range left {
		if live && (l == metaDir+"/redo/"+sharedTree || strings.HasPrefix(l, metaDir+"/"+sessionsDir+"/")) {
			continue // the killed one's session, and what all have
		}
		if o.mayLeave == "" || !strings.Contains(l, o.mayLeave) {
			t.Errorf("%v, another goes on %v: left: %s", d, live, l)
		}
	}
	if t.Failed() {
		t.Logf("the log: %s", b.log)
	}
	emptied(t, after)
	b.close(after)
	return true
}
