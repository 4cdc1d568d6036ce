package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kmsfs/volume"
)

// twoStates is a bucket with what furnish makes and what change makes of it, and
// how each of them looks.
func twoStates(t *testing.T, mode volume.KeyMode) (b *bench, m *memory, looks [3]map[string]string) {
	b, m = newBench(t, mode), newMemory()
	b.with(func(v *volume.Volume) { furnish(t, v.Root()) })
	b.push(m)
	looks[1] = look(t, b.dir)
	b.with(func(v *volume.Volume) { change(t, v.Root()) })
	b.push(m)
	looks[2] = look(t, b.dir)
	return b, m, looks
}

func TestAPullBringsAnyStateOntoAnyOther(t *testing.T) {
	b, m, looks := twoStates(t, volume.ModeFile)
	c := b.elsewhere()
	for _, g := range []uint64{1, 2, 1, 1, 2, 2} {
		r := c.pull(m, func(o *PullOptions) { o.State = g })
		mustBeSame(t, looks[g], look(t, c.dir))
		if again := c.pull(m, func(o *PullOptions) { o.State = g }); again.Got != 0 || again.Placed != 0 || again.Removed != 0 {
			t.Fatalf("after %+v another pull did %+v", r, again)
		}
	}
	report, err := volume.Fsck(t.Context(), c.dir, c.options(), volume.FsckOptions{})
	if err != nil || len(report.Findings) > 0 && os.Geteuid() == 0 { // fsck cannot read what its user may not
		t.Fatalf("fsck finds %v, %v", report.Findings, err)
	}
}

func TestAPullGetsOnlyWhatIsMissing(t *testing.T) {
	b, m, _ := twoStates(t, volume.ModeVolume)
	c := b.elsewhere()
	c.pull(m, func(o *PullOptions) { o.State = 1 })
	r := c.pull(m)
	// small, renamed (its record names its place), symlink, new; and the bundle of
	// the keys of the last two.
	if r.Got != 5 {
		t.Fatalf("it got %d objects", r.Got)
	}
	if m.calls = map[string]int{}; c.pull(m).Got != 0 || m.calls["get"] != 1 {
		t.Fatalf("a pull of what is there made calls %v", m.calls)
	}
}

func TestAPullThatIsKilledAtAnyCallGoesOn(t *testing.T) {
	b, m, looks := twoStates(t, volume.ModeVolume)
	for _, fresh := range []bool{true, false} {
		for n := 1; ; n++ {
			c := b.elsewhere()
			if !fresh {
				c.pull(m, func(o *PullOptions) { o.State = 1 })
			}
			m.stopAt(n, false)
			_, err := c.tryPull(m, func(o *PullOptions) { o.Jobs = 1 })
			m.goOn()
			if err != nil && !errors.Is(err, errStop) {
				t.Fatalf("killed at call %d: %v", n, err)
			}
			c.pull(m)
			mustBeSame(t, looks[2], look(t, c.dir))
			if err == nil {
				if n < 5 {
					t.Fatalf("a pull makes %d calls", n)
				}
				break
			}
		}
	}
}

func TestAPartOfAVolumeIsRestoredAlone(t *testing.T) {
	b, m, looks := twoStates(t, volume.ModeFile)
	backing := make(map[string]string)
	b.with(func(v *volume.Volume) {
		for _, name := range []string{"dir", "small", "linked"} {
			n, _, err := v.Root().Lookup(name)
			if err != nil {
				t.Fatal(err)
			}
			backing[name] = n.BackingPath()
		}
	})
	// Into a volume: a directory that was emptied, from the state before.
	if err := os.RemoveAll(filepath.Join(b.dir, backing["dir"])); err != nil {
		t.Fatal(err)
	}
	b.pull(m, func(o *PullOptions) { o.Path, o.State = "/dir", 1 })
	got := look(t, b.dir)
	want := looks[2]
	for _, l := range []map[string]string{want, got} {
		for path, s := range l {
			// The names of a group are told by the first of them, of which one is gone.
			l[path] = regexp.MustCompile(` as \S+`).ReplaceAllString(s, "")
		}
		delete(l, ".") // the root's time
	}
	mustBeSame(t, want, got)
	b.with(func(v *volume.Volume) {
		dir, _, err := v.Root().Lookup("dir")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(contentOf(t, dir, "other name")); got != string(pattern(9000, 5)) {
			t.Fatal("a name of a file that has another outside is wrong")
		}
	})
	// Into nothing: the file, what leads to it, and a volume that opens.
	c := b.elsewhere()
	c.pull(m, func(o *PullOptions) { o.Path = "dir/attributes" })
	c.with(func(v *volume.Volume) {
		dir, _, err := v.Root().Lookup("dir")
		if err != nil {
			t.Fatal(err)
		}
		if string(contentOf(t, dir, "attributes")) != string(pattern(1, 8)) {
			t.Fatal("its content is wrong")
		}
		for _, n := range []*volume.Node{v.Root(), dir} {
			if names := list(t, n); len(names) != 1 {
				t.Fatalf("there are %v", names)
			}
		}
	})
	if _, err := c.tryPull(m, func(o *PullOptions) { o.Path = "dir/none" }); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("what is not there: %v", err)
	}
}

func TestAPullRefusesACopyThatWasRolledBack(t *testing.T) {
	b, m, looks := twoStates(t, volume.ModeVolume)
	old := m.clone()
	delete(old.objects, manifestKey(2))
	_, err := b.tryPull(old)
	if !errors.Is(err, ErrRollback) || !strings.Contains(err.Error(), "is 1, and this host has seen 2") {
		t.Fatalf("it is %v", err)
	}
	if _, err := b.tryPush(old); !errors.Is(err, ErrRollback) {
		t.Fatalf("push: %v", err)
	}
	mustBeSame(t, looks[2], look(t, b.dir))
	b.pull(old, func(o *PullOptions) { o.AllowRollback, o.Discard = true, true })
	mustBeSame(t, looks[1], look(t, b.dir))
	// The newest one in the place of a later: its generation is sealed in it.
	m.objects[manifestKey(2)] = m.objects[manifestKey(1)]
	if _, err := b.tryPull(m); !errors.Is(err, ErrManifest) {
		t.Fatalf("an old manifest in the place of the new one: %v", err)
	}
}

func TestAPullDoesNotTakeAwayWhatIsNowhereElse(t *testing.T) {
	b, m, looks := twoStates(t, volume.ModeVolume)
	b.with(func(v *volume.Volume) { create(t, v.Root(), "not pushed", nil) })
	now := look(t, b.dir)
	for _, state := range []uint64{1, 2} {
		if _, err := b.tryPull(m, func(o *PullOptions) { o.State = state }); !errors.Is(err, ErrUnpushed) {
			t.Fatalf("it is %v", err)
		}
	}
	mustBeSame(t, now, look(t, b.dir))
	b.pull(m, func(o *PullOptions) { o.Path = "dir" }) // which is not touched
	b.pull(m, func(o *PullOptions) { o.Discard = true })
	mustBeSame(t, looks[2], look(t, b.dir))
	b.pull(m, func(o *PullOptions) { o.State = 1 }) // all that is here is in state 2
	mustBeSame(t, looks[1], look(t, b.dir))
}

func TestAVolumeThatIsInUseOrADirectoryOfSomethingElseIsLeftAlone(t *testing.T) {
	b, m, _ := twoStates(t, volume.ModeVolume)
	b.with(func(*volume.Volume) {
		var inUse *volume.InUseError
		if _, err := b.tryPull(m); !errors.As(err, &inUse) {
			t.Fatalf("it is %v", err)
		}
	})
	c := b.elsewhere()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.dir+"/letter", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.tryPull(m); !errors.Is(err, volume.ErrExists) {
		t.Fatalf("it is %v", err)
	}
}

func contentOf(t testing.TB, dir *volume.Node, name string) []byte {
	t.Helper()
	n, a, err := dir.Lookup(name)
	if err != nil {
		t.Fatalf("look up %s: %v", name, err)
	}
	b := make([]byte, a.Size)
	if _, err := n.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return b
}

func list(t testing.TB, dir *volume.Node) (names []string) {
	t.Helper()
	l, err := dir.List()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for {
		e, err := l.Next()
		if err != nil {
			return names
		}
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
	}
}
