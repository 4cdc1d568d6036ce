package snapshot

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kmsfs/volume"
)

// inProcess is a mount without a kernel: the volume itself.
type inProcess struct {
	v     *volume.Volume
	held  atomic.Int64 // files that were held
	names atomic.Int64 // how often names were
	hook  func()       // before each Settle
}

func (l *inProcess) Flush(context.Context) error { l.v.WriteBack(); return nil }

func (l *inProcess) Settle(_ context.Context, ino, generation uint64) error {
	if l.hook != nil {
		l.hook()
	}
	return l.v.SettleFile(ino, generation)
}

func (l *inProcess) Hold(_ context.Context, ino, generation uint64) (func(), error) {
	l.held.Add(1)
	return l.v.HoldFile(ino, generation)
}

func (l *inProcess) HoldNames(ctx context.Context) (func() error, error) {
	l.names.Add(1)
	release, err := l.v.HoldNames(ctx)
	if err != nil {
		return nil, err
	}
	return func() error { release(); return nil }, nil
}

// pushLive pushes a volume that is open as v.
func (b *bench) pushLive(l *inProcess, m *memory) (PushReport, error) {
	b.t.Helper()
	a, err := volume.OpenAccess(context.Background(), b.dir, b.options())
	if err != nil {
		b.t.Fatal(err)
	}
	defer a.Close()
	return Push(context.Background(), b.dir, a, m, PushOptions{Place: place, Jobs: 3, Live: l})
}

// halting is a backing store on which every large write stops half-way, where anybody
// can see that.
type halting struct{ volume.System }

func (halting) Pwrite(fd int, b []byte, cipherOff int64) (int, error) {
	if len(b) > 10000 {
		b = b[:10000]
		defer time.Sleep(time.Millisecond)
	}
	return volume.System{}.Pwrite(fd, b, cipherOff)
}

// TestAVolumeThatIsWrittenToIsPushedAsItWas has files that say in each of their
// blocks which version they are, and are renamed all the while: of each there must
// be one name, and one version.
func TestAVolumeThatIsWrittenToIsPushedAsItWas(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.store = halting{}
	const files, blocks = 12, 40
	version := func(i, n int) []byte {
		out := make([]byte, blocks*4096)
		for k := range blocks {
			copy(out[k*4096:], fmt.Sprintf("file %d version %d", i, n))
		}
		return out
	}
	b.with(func(v *volume.Volume) {
		var dirs []*volume.Node
		for _, name := range []string{"a", "b"} {
			d, _, err := v.Root().Mkdir(name, 0o755, owner())
			if err != nil {
				t.Fatal(err)
			}
			dirs = append(dirs, d)
		}
		var nodes []*volume.Node
		for i := range files {
			nodes = append(nodes, create(t, dirs[0], fmt.Sprint(i), version(i, 0)))
		}
		var stop atomic.Bool
		var writers sync.WaitGroup
		for i := range files {
			writers.Go(func() {
				in := 0
				for n := 1; !stop.Load(); n++ {
					// One write of all blocks: it is one change.
					if _, err := nodes[i].WriteAt(context.Background(), version(i, n), 0); err != nil {
						t.Errorf("write: %v", err)
						return
					}
					if i%2 == 0 {
						if err := dirs[in].Rename(fmt.Sprint(i), dirs[1-in], fmt.Sprint(i), 0); err != nil {
							t.Errorf("rename: %v", err)
							return
						}
						in = 1 - in
					}
					if i == 0 {
						time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
					}
				}
			})
		}
		l := &inProcess{v: v}
		for n := 0; n < 3 || n < 30 && (l.names.Load() == 0 || l.held.Load() == 0); n++ {
			if r, err := b.pushLive(l, m); err != nil {
				t.Errorf("push: %v, %+v", err, r.Unread)
			}
		}
		stop.Store(true)
		writers.Wait()
		if l.names.Load() == 0 {
			t.Error("names were never held, although they change all the time")
		}
		if l.held.Load() == 0 {
			t.Error("no file was held, although they change all the time")
		}
	})
	for g := uint64(1); g <= 3; g++ {
		c := b.elsewhere()
		c.pull(m, func(o *PullOptions) { o.State = g })
		report, err := volume.Fsck(t.Context(), c.dir, c.options(), volume.FsckOptions{})
		if err != nil || len(report.Findings) > 0 {
			t.Fatalf("state %d: fsck finds %+v, %v", g, report.Findings, err)
		}
		c.with(func(v *volume.Volume) {
			seen := make(map[string]int)
			for _, name := range []string{"a", "b"} {
				d, _, err := v.Root().Lookup(name)
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range list(t, d) {
					seen[file]++
					content := contentOf(t, d, file)
					for k := range blocks {
						if string(content[k*4096:][:24]) != string(content[:24]) {
							t.Fatalf("state %d: file %s is half %q, half %q", g, file, content[:24], content[k*4096:][:24])
						}
					}
				}
			}
			for i := range files {
				if seen[fmt.Sprint(i)] != 1 {
					t.Fatalf("state %d: file %d is there %d times", g, i, seen[fmt.Sprint(i)])
				}
			}
		})
	}
}

// TestFilesThatAreMovedWhileNamesAreDescribedAreThereOnce moves files between
// directories that were described already and others that were not.
func TestFilesThatAreMovedWhileNamesAreDescribedAreThereOnce(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	const dirs = 10
	b.with(func(v *volume.Volume) {
		var in []*volume.Node
		for i := range dirs {
			d, _, err := v.Root().Mkdir(fmt.Sprint("directory ", i), 0o755, owner())
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, d)
			create(t, d, fmt.Sprint(i), pattern(100, i))
		}
		time.Sleep(2 * clockStep)
		var mu sync.Mutex
		settled, late := 0, 0
		l := &inProcess{v: v, hook: func() {
			mu.Lock()
			defer mu.Unlock()
			if settled++; settled == 2*dirs { // all are sent: more files come
				for i, d := range in {
					create(t, d, fmt.Sprint("late ", i), pattern(100, i))
				}
				time.Sleep(2 * clockStep)
			}
		}}
		m.fail = func(_ int, op, key string) error {
			if op != "put" || !strings.HasPrefix(key, objectPrefix) || strings.Contains(key, smallPrefix) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if settled < 2*dirs {
				return nil
			}
			if late++; late != dirs/2 { // these are sent while they are described
				return nil
			}
			for i, d := range in {
				if err := d.Rename(fmt.Sprint(i), in[(i+dirs/2)%dirs], fmt.Sprint(i), 0); err != nil {
					t.Errorf("rename: %v", err)
				}
			}
			time.Sleep(2 * clockStep)
			return nil
		}
		if r, err := b.pushLive(l, m); err != nil {
			t.Fatalf("push: %v, %+v", err, r.Unread)
		}
		if late < dirs/2 {
			t.Fatalf("%d files were sent while they were described", late)
		}
		m.fail = nil
	})
	want := look(t, b.dir)
	c := b.elsewhere()
	c.pull(m)
	mustBeSame(t, want, look(t, c.dir))
}

func TestAFileThatVanishesWhileItIsPushedWasNeverThere(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.with(func(v *volume.Volume) {
		for i := range 20 {
			create(t, v.Root(), fmt.Sprint(i), pattern(5000, i))
		}
		next := 0
		var mu sync.Mutex
		l := &inProcess{v: v, hook: func() {
			mu.Lock()
			defer mu.Unlock()
			if next < 20 {
				if err := v.Root().Unlink(fmt.Sprint(next)); err != nil {
					t.Errorf("unlink: %v", err)
				}
				next += 3
			}
		}}
		if r, err := b.pushLive(l, m); err != nil {
			t.Fatalf("push: %v, %+v", err, r.Unread)
		}
	})
	want := look(t, b.dir)
	c := b.elsewhere()
	c.pull(m)
	got := look(t, c.dir)
	delete(want, ".")
	delete(got, ".")
	mustBeSame(t, want, got)
}

func TestAMountIsNotPulledInto(t *testing.T) {
	b, m := newBench(t, volume.ModeVolume), newMemory()
	b.push(m)
	b.with(func(v *volume.Volume) {
		_, err := b.tryPull(m)
		var inUse *volume.InUseError
		if !errors.As(err, &inUse) {
			t.Fatalf("it is %v", err)
		}
	})
}
