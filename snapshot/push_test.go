package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"kmsfs/crypto"
	"kmsfs/volume"
)

func TestASecondPushSendsWhatHasChangedAndNothingElse(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	const files, changes = 500, 10
	b.with(func(v *volume.Volume) {
		for i := range files {
			create(t, v.Root(), fmt.Sprintf("file %d", i), pattern(100+i, i))
		}
	})
	first := b.push(m)
	// A data file each, a bundle of their keys, the manifest and volume.json.
	if first.Sent != files+3 {
		t.Fatalf("the first push sent %d objects", first.Sent)
	}
	b.with(func(v *volume.Volume) {
		for i := range changes {
			n, _, err := v.Root().Lookup(fmt.Sprintf("file %d", i*7))
			if err != nil {
				t.Fatal(err)
			}
			write(t, n, []byte("changed"), 3)
		}
		// The same length and time, and other attributes: none of that is content.
		n, _, _ := v.Root().Lookup("file 499")
		mode := uint32(0o600)
		must(n.SetAttr(context.Background(), volume.Change{Mode: &mode}))
	})
	m.calls = map[string]int{}
	second := b.push(m)
	want := int64(0)
	for i := range changes {
		size, _ := crypto.CipherSize(int64(100 + i*7))
		want += size
	}
	manifest := m.objects[manifestKey(2)]
	if second.Sent != changes+1 || second.SentBytes != want+int64(len(manifest.b)) {
		t.Fatalf("the second push sent %d objects and %d bytes, want %d and %d", second.Sent, second.SentBytes, changes+1, want+int64(len(manifest.b)))
	}
	if m.calls["get"] != 1 { // volume.json; the newest manifest is here
		t.Fatalf("it got %d objects", m.calls["get"])
	}
	// Without what this host remembers it is the same, but for that manifest.
	b.with(func(v *volume.Volume) {
		n, _, _ := v.Root().Lookup("file 1")
		write(t, n, []byte("again"), 0)
	})
	for _, suffix := range []string{"copy", "manifest"} {
		b.with(func(v *volume.Volume) {
			if err := os.Remove(v.Access().StateFile(suffix)); err != nil {
				t.Fatal(err)
			}
		})
	}
	if third := b.push(m); third.Sent != 2 {
		t.Fatalf("a push that remembers nothing sent %d objects", third.Sent)
	}
	want3 := look(t, b.dir)
	b.lose()
	b.pull(m)
	mustBeSame(t, want3, look(t, b.dir))
}

var errStop = errors.New("killed here")

// stopAt makes a bucket fail from its nth call on, as if the process had been
// killed at it, before or after it was done.
func (m *memory) stopAt(n int, after bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n, m.after = 0, after
	m.fail = func(k int, _, _ string) error {
		if k < n {
			return nil
		}
		if k > n {
			m.after = false
		}
		return errStop
	}
}

func (m *memory) goOn() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.n = nil, 0
}

// change makes a second state out of what furnish made.
func change(t *testing.T, root *volume.Node) {
	n, _, err := root.Lookup("small")
	if err != nil {
		t.Fatal(err)
	}
	write(t, n, pattern(8000, 77), 2000)
	if err := root.Unlink("one byte"); err != nil {
		t.Fatal(err)
	}
	if err := root.Rename("big", root, "renamed", 0); err != nil {
		t.Fatal(err)
	}
	if err := root.Unlink("symlink"); err != nil {
		t.Fatal(err)
	}
	create(t, root, "symlink", []byte("a file by now"))
	dir, _, err := root.Mkdir("new directory", 0o750, owner())
	if err != nil {
		t.Fatal(err)
	}
	create(t, dir, "new", pattern(70000, 9))
}

func TestAPushThatIsKilledAtAnyCallGoesOnAndIsSeenWholeOrNotAtAll(t *testing.T) {
	b := newBench(t, volume.ModeVolume)
	b.with(func(v *volume.Volume) { furnish(t, v.Root()) })
	base := newMemory()
	b.push(base)
	before := look(t, b.dir)
	b.with(func(v *volume.Volume) { change(t, v.Root()) })
	after := look(t, b.dir)
	saved := saveState(t, b)
	for _, done := range []bool{false, true} {
		calls := 0
		for n := 1; ; n++ {
			restoreState(t, b, saved)
			m := base.clone()
			m.stopAt(n, done)
			_, err := b.tryPush(m, func(o *PushOptions) { o.Jobs = 1; o.Keep = 1 })
			m.goOn()
			if err == nil {
				calls = n
				break
			}
			if !errors.Is(err, errStop) {
				t.Fatalf("killed at call %d: %v", n, err)
			}
			// Whoever reads it now sees the old state or the new one.
			reader := b.elsewhere()
			r := reader.pull(m)
			want := before
			if r.Generation == 2 {
				want = after
			}
			mustBeSame(t, want, look(t, reader.dir))
			// The same push goes on.
			first := sentObjects(m)
			again := b.push(m, func(o *PushOptions) { o.Keep = 1 })
			if again.Generation != 2 {
				t.Fatalf("killed at call %d: the next push makes state %d", n, again.Generation)
			}
			if r.Generation == 1 && int(again.FoundAgain) != first {
				t.Fatalf("killed at call %d with %d objects sent: the next push found %d again", n, first, again.FoundAgain)
			}
			fresh := b.elsewhere()
			fresh.pull(m)
			mustBeSame(t, after, look(t, fresh.dir))
			mustHaveNothingElse(t, b, m)
		}
		if calls < 10 {
			t.Fatalf("a push makes %d calls", calls)
		}
	}
}

// sentObjects counts the objects that a push has sent that is not committed.
func sentObjects(m *memory) int {
	marks, n := m.keys(pushPrefix), 0
	for _, mark := range marks {
		n += len(m.keys(objectPrefix + strings.TrimPrefix(mark, pushPrefix) + "/"))
	}
	return n
}

// nothing that they do not.
// saveState keeps what a host remembers.
func saveState(t testing.TB, b *bench) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for _, e := range must(os.ReadDir(b.state)) {
		out[e.Name()] = must(os.ReadFile(b.state + "/" + e.Name()))
	}
	return out
}

func restoreState(t testing.TB, b *bench, saved map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(b.state); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(b.state, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range saved {
		if err := os.WriteFile(b.state+"/"+name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoPushesAtOnceAreBothThereAndNothingIsLost(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.with(func(v *volume.Volume) { furnish(t, v.Root()) })
	b.push(m)
	other := b.elsewhere()
	other.pull(m)
	b.with(func(v *volume.Volume) { create(t, v.Root(), "mine", pattern(5000, 1)) })
	other.with(func(v *volume.Volume) { create(t, v.Root(), "theirs", pattern(5000, 2)) })
	mine, theirs := look(t, b.dir), look(t, other.dir)
	// At each call of one push, another one runs from its beginning to its end.
	for n, keep := 1, 0; ; keep = 1 - keep {
		c := m.clone()
		count, ran := 0, false
		var they PushReport
		c.fail = func(int, string, string) error {
			if count++; count != n {
				return nil
			}
			ran = true
			c.mu.Unlock()
			defer c.mu.Lock()
			saved := saveState(t, other)
			they = other.push(c, func(o *PushOptions) { o.Keep = keep; o.Jobs = 1 })
			restoreState(t, other, saved)
			return nil
		}
		saved := saveState(t, b)
		r := b.push(c, func(o *PushOptions) { o.Jobs = 1 })
		restoreState(t, b, saved)
		c.fail = nil
		if !ran {
			if n < 10 {
				t.Fatalf("a push makes %d calls", n)
			}
			return
		}
		if r.Generation == they.Generation {
			t.Fatalf("at call %d: both made state %d", n, r.Generation)
		}
		for g, want := range map[uint64]map[string]string{r.Generation: mine, they.Generation: theirs} {
			if keep == 1 && g < max(r.Generation, they.Generation) {
				continue // it may be gone
			}
			fresh := b.elsewhere()
			fresh.pull(c, func(o *PullOptions) { o.State = g })
			mustBeSame(t, want, look(t, fresh.dir))
		}
		n += keep
	}
}

func TestACopyOfAnotherVolumeIsNotPushedTo(t *testing.T) {
	a, b, m := newBench(t, volume.ModeVolume), newBench(t, volume.ModeVolume), newMemory()
	a.push(m)
	if _, err := b.tryPush(m); !errors.Is(err, ErrOtherVolume) {
		t.Fatalf("it is %v", err)
	}
	if _, err := b.tryPull(m); !errors.Is(err, ErrOtherVolume) {
		t.Fatalf("pull: %v", err)
	}
}

func TestAFileThatCannotBeCopiedIsNamedAndThereIsNoNewState(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	var backing string
	b.with(func(v *volume.Volume) {
		create(t, v.Root(), "good", pattern(10, 1))
		backing = create(t, v.Root(), "damaged", pattern(10, 2)).BackingPath()
	})
	b.push(m)
	f := must(os.OpenFile(b.dir+"/"+backing, os.O_RDWR, 0))
	must(f.WriteAt([]byte("damage"), 100))
	f.Close()
	r, err := b.tryPush(m)
	if !errors.Is(err, ErrUnread) || len(r.Unread) != 1 || r.Unread[0].Name != backing {
		t.Fatalf("it is %v, %+v", err, r.Unread)
	}
	if len(m.keys(manifestPrefix)) != 1 {
		t.Fatal("there is a new state")
	}
}

func TestABusyVolumeIsSaidToBeBusy(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.with(func(v *volume.Volume) { create(t, v.Root(), "file", nil) })
	m.fail = func(_ int, op, _ string) error {
		if op != "list" {
			return nil
		}
		m.fail = nil
		m.mu.Unlock()
		defer m.mu.Lock()
		a, err := volume.OpenAccess(context.Background(), b.dir, b.options())
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if _, err := Push(context.Background(), b.dir, a, m, PushOptions{Place: place}); !errors.Is(err, ErrBusy) {
			t.Errorf("another push on this host: %v", err)
		}
		return nil
	}
	b.push(m)
}

// TestKeysThatChangeMeanwhileGoWithTheirConfiguration rewrites volume.json while a
// volume is described that is in use: sidecars and configuration are of one moment.
func TestKeysThatChangeMeanwhileGoWithTheirConfiguration(t *testing.T) {
	b, m := newBench(t, volume.ModeFile), newMemory()
	b.with(func(v *volume.Volume) {
		create(t, v.Root(), "file", pattern(10, 1))
		time.Sleep(2 * clockStep)
		done := false
		m.fail = func(_ int, op, key string) error {
			if op != "put" || !strings.Contains(key, smallPrefix) || done {
				return nil
			}
			done = true // the sidecars are sent, and the old configuration is in the manifest
			m.mu.Unlock()
			defer m.mu.Lock()
			o := volume.RewrapOptions{Providers: b.registry(), StateDir: b.state}
			o.To.Provider, o.To.KeyID = "local", "arn:fake:key/2"
			if _, err := volume.Rewrap(context.Background(), b.dir, o); err != nil {
				t.Errorf("rewrap: %v", err)
			}
			return nil
		}
		if r, err := b.pushLive(&inProcess{v: v}, m); err != nil {
			t.Fatalf("push: %v, %+v", err, r.Unread)
		}
		if !done {
			t.Fatal("nothing was rewrapped")
		}
	})
	want := look(t, b.dir)
	c := b.elsewhere()
	c.pull(m)
	mustBeSame(t, want, look(t, c.dir))
}
