package snapshot

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kmsfs/volume"
)

// mustHaveNothingElse makes sure that a bucket has what its states refer to, and
func mustHaveNothingElse(t testing.TB, b *bench, m *memory) {
	t.Helper()
	left := make(map[string]bool)
	for _, key := range m.keys("") {
		left[key] = true
	}
	b.with(func(v *volume.Volume) {
		a := v.Access()
		defer a.Close()
		whole, pruned, err := states(t.Context(), m)
		if err != nil || len(pruned) > 0 {
			t.Fatalf("states %v, %v, %v", whole, pruned, err)
		}
		for _, g := range whole {
			f, d, err := fetchManifest(t.Context(), a, m, g)
			if err != nil {
				t.Fatal(err)
			}
			delete(left, manifestKey(g))
			refer := func(key string) {
				if _, ok := m.objects[key]; !ok {
					t.Fatalf("state %d refers to %s, which is not there", g, key)
				}
				delete(left, key)
			}
			for i := range d.Bundles {
				refer(d.Bundles[i].Key())
			}
			err = each(a, f, g, func(x *Entry) error {
				if x.Kind == KindFile {
					refer(x.File.Key())
				}
				return nil
			})
			f.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	delete(left, configKey)
	if len(left) > 0 {
		t.Fatalf("nothing refers to %v", left)
	}
}

func TestOnlyTheStatesThatAreToBeKeptStay(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	looks := map[uint64]map[string]string{}
	for i := range 6 {
		b.with(func(v *volume.Volume) {
			create(t, v.Root(), fmt.Sprintf("file %d", i), pattern(100, i))
			if i > 1 {
				if err := v.Root().Unlink(fmt.Sprintf("file %d", i-2)); err != nil {
					t.Fatal(err)
				}
			}
		})
		r := b.push(m, func(o *PushOptions) { o.Keep = 3 })
		looks[r.Generation] = look(t, b.dir)
		mustHaveNothingElse(t, b, m)
		if want := max(0, i-2); i >= 3 && (len(r.StatesRemoved) != 1 || r.StatesRemoved[0] != uint64(want)) {
			t.Fatalf("push %d removed states %v", i+1, r.StatesRemoved)
		}
	}
	for g := uint64(4); g <= 6; g++ {
		c := b.elsewhere()
		if r := c.pull(m, func(o *PullOptions) { o.State = g }); r.Generation != g {
			t.Fatalf("asked for state %d, %d came", g, r.Generation)
		}
		mustBeSame(t, looks[g], look(t, c.dir))
	}
	if _, err := b.elsewhere().tryPull(m, func(o *PullOptions) { o.State = 3 }); !errors.Is(err, ErrNoState) {
		t.Fatalf("state 3 is %v", err)
	}
}

func TestWhatAPushLeftThatDiedLongAgoIsRemoved(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.with(func(v *volume.Volume) { furnish(t, v.Root()) })
	m.stopAt(12, false)
	if _, err := b.tryPush(m); err == nil {
		t.Fatal("it was not killed")
	}
	m.goOn()
	if sentObjects(m) == 0 {
		t.Fatal("it left nothing")
	}
	if err := os.RemoveAll(b.state); err != nil { // nobody knows of it any more
		t.Fatal(err)
	}
	b.push(m)
	if len(m.keys(pushPrefix)) != 1 {
		t.Fatal("what may be under way was removed")
	}
	m.clock = deadAfter + time.Minute
	b.with(func(v *volume.Volume) { create(t, v.Root(), "another", nil) })
	b.push(m)
	mustHaveNothingElse(t, b, m)
}

func TestWhatIsLeftOfABundleGoesIntoANewOne(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	const files = 20
	b.with(func(v *volume.Volume) {
		for i := range files {
			create(t, v.Root(), fmt.Sprintf("file %d", i), nil)
		}
	})
	b.push(m)
	bundles := func() (n int) {
		for _, key := range m.keys(objectPrefix) {
			if strings.Contains(key, smallPrefix) {
				n++
			}
		}
		return n
	}
	// More than half goes, and then something more, so that the next push knows.
	for _, some := range [][2]int{{0, 12}, {12, 13}} {
		b.with(func(v *volume.Volume) {
			for i := some[0]; i < some[1]; i++ {
				if err := v.Root().Unlink(fmt.Sprintf("file %d", i)); err != nil {
					t.Fatal(err)
				}
			}
		})
		b.push(m, func(o *PushOptions) { o.Keep = 1 })
	}
	if n := bundles(); n != 1 {
		t.Fatalf("there are %d bundles", n)
	}
	for _, key := range m.keys(objectPrefix) {
		if strings.Contains(key, smallPrefix) && len(m.objects[key].b) != (files-13)*157 {
			t.Fatalf("a bundle has %d bytes", len(m.objects[key].b))
		}
	}
	mustHaveNothingElse(t, b, m)
	want := look(t, b.dir)
	c := b.elsewhere()
	c.pull(m)
	mustBeSame(t, want, look(t, c.dir))
}
