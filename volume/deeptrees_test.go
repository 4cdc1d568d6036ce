package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is done to a tree costs as much as there is in it, however deep it is. What
// counts is calls on the backing directory and bytes allocated, of which paths would
// be the most.

// deepDepths are more than there are descriptors, and paths longer than are told.
var deepDepths = []int{150, 300, 900}

// few lets hardly any descriptors be open at once.
func few(o *Options) { o.MaxDescriptors = 16 }

// cost is what something took.
type cost struct {
	calls map[string]int
	bytes uint64 // allocated
}

func (c cost) total() (n uint64) {
	for _, m := range c.calls {
		n += uint64(m)
	}
	return n
}

// counted says what run costs, which makes its calls on the store that it is given.
func counted(run func(Backing)) cost {
	var mu sync.Mutex
	c := cost{calls: map[string]int{}}
	k := &tap{Backing: System{}, through: func(one call, do func(int) error) error {
		mu.Lock()
		c.calls[one.op]++
		mu.Unlock()
		return idle(one, do)
	}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	run(k)
	runtime.ReadMemStats(&after)
	c.bytes = after.TotalAlloc - before.TotalAlloc
	return c
}

// deepTree makes directories within each other, and in each beside the next one an
// empty directory and a file.
func deepTree(t *testing.T, v *Volume, depth int) {
	n := v.Root()
	for range depth {
		createFile(t, n, "file", []byte("content"))
		for _, name := range []string{"beside", "z"} {
			if _, _, err := n.Mkdir(name, 0o755, Owner{}); err != nil {
				t.Fatal(err)
			}
		}
		n = lookup(t, n, "z")
	}
}

// plantTree makes directories within each other that are not kmsfs's.
func plantTree(t *testing.T, b *bench, depth int) {
	fd, err := unix.Open(b.dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	for i := 0; i < depth && err == nil; i++ {
		name := fmt.Sprintf("somebody's-directory-%06d", i)
		if err = unix.Mkdirat(fd, name, 0o755); err != nil {
			break
		}
		next := -1
		next, err = unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd = next
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
}

func TestWhatIsDoneToADeepTreeCostsNoMoreForBeingDeep(t *testing.T) {
	healthy := func(t *testing.T, b *bench, depth int) {
		v := b.open(withTap(&tap{Backing: System{}, through: idle}))
		deepTree(t, v, depth)
		b.close(v)
	}
	checking := func(f FsckOptions) func(*testing.T, *bench, Backing) {
		return func(t *testing.T, b *bench, k Backing) {
			f.Jobs = 1
			f.Progress = func(int64, int64) {}
			if _, err := b.fsck(f, few, func(o *Options) { o.Backing = k }); err != nil {
				t.Fatal(err)
			}
		}
	}
	opened := func(run func(*testing.T, *Volume)) func(*testing.T, *bench, Backing) {
		return func(t *testing.T, b *bench, k Backing) {
			v := b.open(few, func(o *Options) { o.Backing = k })
			run(t, v)
			b.close(v)
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(*testing.T, *bench, int)
		run     func(*testing.T, *bench, Backing)
	}{
		{"check", healthy, checking(FsckOptions{})},
		{"repair", healthy, checking(FsckOptions{Repair: true})},
		{"check of what was planted", plantTree, checking(FsckOptions{})},
		{"repair of what was planted", plantTree, checking(FsckOptions{Repair: true})},
		{"check after a power cut", func(t *testing.T, b *bench, depth int) {
			healthy(t, b, depth)
			b.powerCut(b.open())
		}, opened(func(t *testing.T, v *Volume) { settle(t, v) })},
		{"use", healthy, opened(useTree)},
		{"reencrypt", healthy, opened(func(t *testing.T, v *Volume) {
			if r, err := v.Reencrypt(t.Context(), ReencryptOptions{}); err != nil || !r.Complete {
				t.Fatalf("%v: %+v", err, r)
			}
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			var costs []cost
			for _, depth := range deepDepths {
				b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
				c.prepare(t, b, depth)
				costs = append(costs, counted(func(k Backing) { c.run(t, b, k) }))
			}
			linear := func(what string, of func(cost) uint64) {
				a, b, c := of(costs[0]), of(costs[1]), of(costs[2])
				t.Logf("%s for %d directories within each other: %d, %d, %d", what, deepDepths, a, b, c)
				// The second step is four times the first. Were it for each what is above it, it would cost 10.7 times as much.
				// What is between is left to garbage collection, pools and who comes first.
				if c-b > 7*(b-a) {
					t.Errorf("%s grow: %d, then %d, then %d", what, a, b, c)
				}
			}
			linear("calls", cost.total)
			linear("bytes", func(c cost) uint64 { return c.bytes })
		})
	}
}

// useTree goes down a tree and does in each directory what programs do.
func useTree(t *testing.T, v *Volume) {
	for n, next := v.Root(), (*Node)(nil); n != nil; n, next = next, nil {
		for _, name := range list(t, n) {
			child := lookup(t, n, name)
			if _, err := child.Attr(); err != nil {
				t.Fatal(err)
			}
			if name == "z" {
				next = child
			}
		}
		if next == nil {
			return
		}
		readAll(t, lookup(t, n, "file"))
		f := createFile(t, n, "new", pattern(100, 1))
		ok(t, f.Sync(false))
		ok(t, n.Rename("new", n, "other", 0))
		ok(t, n.Unlink("other"))
		f.Forget()
	}
}

// However few descriptors may be open, what is far down can be reached.
func TestADirectoryFarDownIsReachedWithFewDescriptors(t *testing.T) {
	b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
	k := &openCount{}
	v := b.open(few, func(o *Options) { o.Backing = k })
	const depth = 200
	deepTree(t, v, depth)
	n := v.Root()
	for range depth {
		n = lookup(t, n, "z")
	}
	forgetAll(v, nil)
	before := k.reset()
	if got := list(t, n); len(got) != 0 {
		t.Errorf("%q at the bottom", got)
	}
	if got := k.most() - before; got > 20 {
		t.Errorf("%d descriptors more are open at once", got)
	}
}

// openCount is a store that counts the descriptors that are open.
type openCount struct {
	System
	mu        sync.Mutex
	now, peak int
}

func (k *openCount) add(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.now += n
	k.peak = max(k.peak, k.now)
}

// reset begins to look for the most anew, and tells how many are open.
func (k *openCount) reset() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.peak = k.now
	return k.now
}

// most is how many have been open at once since.
func (k *openCount) most() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.peak
}

func (k *openCount) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	fd, err := k.System.Openat(dirfd, name, flags, mode)
	if err == nil {
		k.add(1)
	}
	return fd, err
}

func (k *openCount) Close(fd int) error {
	k.add(-1)
	return k.System.Close(fd)
}

// Somebody moves the directory above into the one below while both are in use.
func TestDirectoriesThatSeemToBeInACircleHangNothing(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	above, _, err := v.Root().Mkdir("above", 0o755, Owner{})
	ok(t, err)
	below, _, err := above.Mkdir("below", 0o755, Owner{})
	ok(t, err)
	list(t, below) // it is open
	aside := filepath.Join(b.dir, "aside")
	inner := filepath.Join(aside, filepath.Base(b.backingFile(above)))
	ok(t, os.Rename(b.backingFile(below), aside))
	ok(t, os.Rename(b.backingFile(above), inner))
	if _, _, err := below.Lookup(brokenName(filepath.Base(inner))); err != nil {
		t.Fatal(err)
	}
	above.Forget()
	below.Forget()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := above.use(); err != unix.ENOENT {
			t.Errorf("open it: %v", err)
		}
		_ = below.payParents()
		if p := below.Path(); len(p) > 2*maxPath {
			t.Errorf("a path of %d bytes", len(p))
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("it hangs")
	}
}

// Of a path that no system call would take, a message has the end.
func TestOfALongPathTheEndIsTold(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	n := v.Root()
	for i := range 40 {
		var err error
		n, _, err = n.Mkdir(fmt.Sprintf("%s%03d", strings.Repeat("d", 122), i), 0o755, Owner{})
		ok(t, err)
		want := 126*(i+1) - 1
		if p := n.Path(); len(p) < min(want, maxPath-126) || len(p) > min(want, maxPath+len(cutPath)) || (want > maxPath) != strings.HasPrefix(p, cutPath+"/d") ||
			!strings.HasSuffix(p, fmt.Sprintf("d%03d", i)) {
			t.Fatalf("at %d levels: %d bytes, %.10s", i+1, len(p), p)
		}
	}
	if p := n.BackingPath(); !strings.HasPrefix(p, cutPath+"/") || len(p) <= slotMACAt-slotPathAt-MaxName {
		t.Errorf("%d bytes: %.10s", len(p), p)
	}
	// What is not whole leads nowhere, and is not noted as where something is.
	var text string
	in := v.intend(intent{kind: intentMake, to: entryIn(n, "x")})
	got, armed := parseIntent(in.slot.mem[:slotHeader], v.redo.session, v.redo.key)
	if text = got.to.path; !armed || text != "" {
		t.Errorf("an intent with the path %.10s", text)
	}
	in.done()
}

// What a killed mount was about to change is found wherever it is by now, with few
// descriptors.
func TestWhatIsSoughtInTheWholeTreeIsFoundHoweverDeep(t *testing.T) {
	b := newBenchIn(t, fastPlace(t), ModeVolume, newFakeKMS())
	k := &openCount{}
	v := b.open(few, func(o *Options) { o.Backing = k })
	n := v.Root()
	for i := range 2200 {
		var err error
		if n, _, err = n.Mkdir("d", 0o700, Owner{}); err != nil {
			t.Fatal(i, err)
		}
	}
	file := createFile(t, n, "file", pattern(100, 1))
	id, err := file.xattrID()
	ok(t, err)
	before := k.reset()
	fd, err := v.searchChanged(&change{ino: file.key.ino, file: id}, unix.O_RDWR)
	if err != nil {
		t.Fatalf("a file far down: %v", err)
	}
	ok(t, k.Close(fd))
	if found, err := v.searchDir(n.key.ino); err != nil || found != n {
		t.Errorf("a directory far down: %v, %v", found, err)
	}
	if got := k.most() - before; got > 20 {
		t.Errorf("%d descriptors more are open at once", got)
	}
	if _, err := v.searchChanged(&change{ino: 1, file: id}, unix.O_RDWR); err != unix.ENOENT {
		t.Errorf("a file that is gone: %v", err)
	}
	if _, err := v.searchDir(1); err != unix.ENOENT {
		t.Errorf("a directory that is gone: %v", err)
	}
}
