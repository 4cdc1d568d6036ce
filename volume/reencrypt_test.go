package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// fileState is what must stay the same of a file, and its ID, which must not.
type fileState struct {
	id      crypto.ID
	content []byte
	attr    Attr
	stored  uint64
	xattrs  map[string][]byte
}

// treeState reads all regular files below a directory.
func treeState(t testing.TB, dir *Node, out map[string]fileState) {
	t.Helper()
	for _, name := range must(dir.names())(t) {
		n := lookup(t, dir, name)
		switch {
		case n.IsDir():
			treeState(t, n, out)
		case n.IsRegular():
			a := must(n.Attr())(t)
			f := must(n.openFile(false))(t)
			s := fileState{id: f.id, stored: f.rec.Stored, attr: a}
			f.release()
			s.content, s.xattrs = readAll(t, n), must(n.xattrMap())(t)
			// What a new inode cannot keep.
			s.attr.Ino, s.attr.Gen, s.attr.Blocks, s.attr.Ctime, s.attr.Btime, s.attr.Atime = 0, 0, 0, unix.StatxTimestamp{}, unix.StatxTimestamp{}, unix.StatxTimestamp{}
			at := target{dir: dir, name: name, node: n}
			out[at.path()] = s
		}
	}
}

// compareTrees tells where files differ but for their IDs.
func compareTrees(t testing.TB, before, after map[string]fileState, kept ...string) {
	t.Helper()
	if len(before) != len(after) {
		t.Errorf("%d files before, %d after", len(before), len(after))
	}
	for path, b := range before {
		a := after[path]
		if (a.id == b.id) != slices.Contains(kept, path) {
			t.Errorf("%q: file ID %s, then %s", path, b.id, a.id)
		}
		if !bytes.Equal(a.content, b.content) {
			t.Errorf("%q: %d bytes of content, then %d others", path, len(b.content), len(a.content))
		}
		if a.attr != b.attr {
			t.Errorf("%q: attributes\n%+v, then\n%+v", path, b.attr, a.attr)
		}
		if a.stored != b.stored {
			t.Errorf("%q: %d blocks stored, then %d", path, b.stored, a.stored)
		}
		if !reflect.DeepEqual(a.xattrs, b.xattrs) {
			t.Errorf("%q: extended attributes %v, then %v", path, b.xattrs, a.xattrs)
		}
	}
}

// variedTree makes files of every kind that Reencrypt must keep as they are, and
// returns how many.
func variedTree(t testing.TB, v *Volume) int {
	t.Helper()
	ctx, n := context.Background(), 0
	dir := v.Root()
	make := func(name string, content []byte) *Node {
		n++
		return createFile(t, dir, name, content)
	}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 70_000, maxWrite + 5} {
		make(fmt.Sprint("size ", size), pattern(size, byte(size)))
	}
	for i := range 3 {
		sub, _, err := dir.Mkdir(fmt.Sprint("dir ", i), 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		dir = sub
		make(strings.Repeat("long", 60), pattern(100, 1))
	}
	sparse := make("sparse", pattern(3*crypto.BlockSize, 2))
	writeAll(t, sparse, pattern(5000, 3), 4*crypto.BlockSize) // a hole of one block
	writeAll(t, sparse, pattern(10, 4), 3<<20)
	if err := sparse.Truncate(ctx, 5<<20); err != nil {
		t.Fatal(err)
	}
	if err := make("only a hole", nil).Truncate(ctx, 100_000); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []uint32{0o444, 0o000, 0o4755, 0o2710} {
		f := make(fmt.Sprintf("mode %o", mode), pattern(200, byte(mode)))
		if _, err := f.SetAttr(ctx, Change{Mode: &mode}); err != nil {
			t.Fatal(err)
		}
	}
	attrs := make("attributes", pattern(300, 5))
	for name, value := range map[string]string{"user.one": "1", "user.empty": "", "user.long": strings.Repeat("x", 1000)} {
		if err := attrs.Setxattr(name, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Unix(1_000_000_000, 123_456_789)
	if _, err := attrs.SetAttr(ctx, Change{Atime: &old, Mtime: &old}); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		uid := uint32(54321)
		if _, err := make("somebody else's", pattern(10, 6)).SetAttr(ctx, Change{UID: &uid, GID: &uid}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := dir.Symlink("target", "link", Owner{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := dir.Mknod("fifo", unix.S_IFIFO|0o600, 0, 0, Owner{}); err != nil {
		t.Fatal(err)
	}
	return n
}

// temporaries lists what is on its way somewhere below the backing directory.
func (b *bench) temporaries() (out []string) {
	for name := range hashTree(b.t, b.dir, func(rel string) bool { return strings.Contains(rel, ".tmp") }) {
		out = append(out, name)
	}
	return out
}

func TestReencryptGivesEveryFileANewKeyAndKeepsAllElse(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t, mode)
			v := b.open()
			n := variedTree(t, v)
			// Not inherited: what the file has not got is not given to it.
			acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\x39\x30\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
			if err := lookup(t, v.Root(), "dir 0").Setxattr(ACLDefault, acl, 0); err != nil {
				t.Logf("no ACLs on this store: %v", err)
			} else if err := lookup(t, v.Root(), "size 1").Setxattr(ACLAccess, acl, 0); err != nil {
				t.Fatal(err)
			}
			before := map[string]fileState{}
			treeState(t, v.Root(), before)
			b.close(v)
			sidecars := hashTree(t, b.dir, sidecarFiles)

			v = b.open()
			report, err := v.Reencrypt(context.Background(), ReencryptOptions{})
			if err != nil || !report.Complete || report.Files != n || len(before) != n {
				t.Fatalf("%v, %+v; %d files", err, report, n)
			}
			after := map[string]fileState{}
			treeState(t, v.Root(), after)
			compareTrees(t, before, after)
			for path := range after {
				node := v.Root()
				for name := range strings.SplitSeq(path, "/") {
					node = lookup(t, node, name)
				}
				checkSeal(t, node)
			}
			b.close(v)
			v = b.open() // what is on disk says the same
			again := map[string]fileState{}
			treeState(t, v.Root(), again)
			compareTrees(t, before, again)
			b.close(v)
			if got := b.temporaries(); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
			left := hashTree(t, b.dir, sidecarFiles)
			for name := range sidecars {
				if _, ok := left[name]; ok {
					t.Errorf("old sidecar %s is left", name)
				}
			}
			if len(left) != n {
				t.Errorf("%d sidecars for %d files", len(left), n)
			}
			if _, err := os.Stat(filepath.Join(b.state, v.ID().String()+".reencrypt")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the journal of a complete run is left: %v", err)
			}
		})
	}
}

func TestReencryptOfPathsLeavesTheRest(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	variedTree(t, v)
	before := map[string]fileState{}
	treeState(t, v.Root(), before)
	var kept []string
	for path := range before {
		if path != "size 1" && !strings.HasPrefix(path, "dir 0/dir 1/") {
			kept = append(kept, path)
		}
	}
	for _, bad := range []string{"absent", "size 1/x", "dir 0/dir 1/dir 2/link", "../x"} {
		if _, err := v.Reencrypt(context.Background(), ReencryptOptions{Paths: []string{"size 1", bad}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", bad)) {
			t.Errorf("path %q: %v", bad, err)
		}
	}
	if _, err := v.Reencrypt(context.Background(), ReencryptOptions{Paths: []string{"/size 1", "dir 0/dir 1/"}}); err != nil {
		t.Fatal(err)
	}
	after := map[string]fileState{}
	treeState(t, v.Root(), after)
	compareTrees(t, before, after, kept...)
}

func TestReencryptReportsHardLinksAndDamageAndLeavesThem(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	for i := range 5 {
		createFile(t, v.Root(), fileName(i), pattern(10_000, byte(i)))
	}
	if _, err := v.Root().Link(lookup(t, v.Root(), fileName(1)), "second name"); err != nil {
		t.Fatal(err)
	}
	before := map[string]fileState{}
	treeState(t, v.Root(), before)
	damaged := b.backingFile(lookup(t, v.Root(), fileName(3)))
	sidecarless := b.sidecarOf(v, fileName(4))
	b.close(v)
	flipByte(t, damaged, crypto.BlockOffset(1)+100)
	key := readFile(t, sidecarless)
	at := before[fileName(3)].attr.Mtime
	if err := os.Remove(sidecarless); err != nil {
		t.Fatal(err)
	}
	v = b.open()
	r, err := v.Reencrypt(context.Background(), ReencryptOptions{})
	if !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrIntegrity) || r.Complete || r.Files != 2 {
		t.Fatalf("%v, %+v", err, r)
	}
	slices.Sort(r.Linked)
	if !slices.Equal(r.Linked, []string{fileName(1), "second name"}) {
		t.Errorf("linked %q", r.Linked)
	}
	if len(r.Failed) != 2 || r.Failed[0].Path != fileName(3) || r.Failed[1].Path != fileName(4) || !strings.Contains(r.Failed[0].Error, "block 1") {
		t.Errorf("failed %+v", r.Failed)
	}
	if got := b.temporaries(); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	// Once repaired, the next run does the rest and nothing twice.
	flipByte(t, damaged, crypto.BlockOffset(1)+100)
	writeFile(t, sidecarless, key)
	if err := os.Chtimes(damaged, time.Time{}, time.Unix(at.Sec, int64(at.Nsec))); err != nil {
		t.Fatal(err)
	}
	if err := v.Root().Unlink("second name"); err != nil {
		t.Fatal(err)
	}
	again, err := v.Reencrypt(context.Background(), ReencryptOptions{})
	if err != nil || again.Files != 3 || again.Already != 2 || again.Resumed == nil {
		t.Fatalf("%v, %+v", err, again)
	}
	delete(before, "second name")
	after := map[string]fileState{}
	treeState(t, v.Root(), after)
	for path, s := range before { // one name less
		s.attr.Nlink = 1
		before[path] = s
	}
	compareTrees(t, before, after)
}

func TestReencryptStopsWhereTheNextFileWouldFailToo(t *testing.T) {
	const n = 12
	full := func(after int32) func(b *bench, v *Volume, k *faulty) {
		return func(_ *bench, _ *Volume, k *faulty) {
			var writes atomic.Int32 // the pool writes sidecars beside
			k.set(func() {
				k.pwrite = func([]byte, int64) (int, error) {
					if writes.Add(1) > after {
						return 0, unix.ENOSPC
					}
					return 0, nil
				}
			})
		}
	}
	for name, c := range map[string]struct {
		begin func(b *bench, v *Volume, k *faulty)
		cause error
	}{
		"full store":                {full(30), unix.ENOSPC},
		"full store from the start": {full(0), unix.ENOSPC},
		"KMS down": {func(b *bench, v *Volume, _ *faulty) {
			var calls atomic.Int32
			b.kms.setFail(func(string) error {
				if calls.Add(1) > n {
					return kmsprovider.ErrUnavailable
				}
				return nil
			})
		}, kmsprovider.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			b := filledBench(t, ModeFile, n)
			k := newFaulty()
			v := b.open(func(o *Options) { o.Backing = k })
			c.begin(b, v, k)
			r, err := v.Reencrypt(context.Background(), ReencryptOptions{})
			if !errors.Is(err, c.cause) || r.Complete || r.Files == n {
				t.Fatalf("%v, %+v", err, r)
			}
			b.kms.setFail(nil)
			k.set(func() { k.pwrite = nil })
			if got := b.temporaries(); len(got) != 0 {
				t.Errorf("left: %v", got)
			}
			again, err := v.Reencrypt(context.Background(), ReencryptOptions{})
			if err != nil || again.Files+r.Files != n || again.Already != r.Files {
				t.Errorf("%v, %+v after %+v", err, again, r)
			}
			b.close(v)
			b.checkFilled(n)
		})
	}
}

func TestReencryptDoesNotTrustACopyThatIsNotRight(t *testing.T) {
	b := newBench(t, ModeFile)
	k := newFaulty()
	v := b.open(func(o *Options) { o.Backing = k })
	for i, size := range []int{0, 5000, 300_000} {
		createFile(t, v.Root(), fileName(i), pattern(size, 1))
	}
	before := map[string]fileState{}
	treeState(t, v.Root(), before)
	k.set(func() {
		k.pwrite = func(p []byte, _ int64) (int, error) {
			if len(p) > crypto.HeaderSize { // blocks reach the disk changed, and nobody says so
				p[len(p)-1] ^= 1
			}
			return 0, nil
		}
	})
	r, err := v.Reencrypt(context.Background(), ReencryptOptions{})
	k.set(func() { k.pwrite = nil })
	// The empty one has no block.
	if !errors.Is(err, ErrIncomplete) || r.Files != 1 || len(r.Failed) != 2 || !strings.Contains(r.Failed[0].Error, "verify the new copy") {
		t.Fatalf("%v, %+v", err, r)
	}
	after := map[string]fileState{}
	treeState(t, v.Root(), after)
	compareTrees(t, before, after, fileName(1), fileName(2))
}

func TestATemporaryWithTheIDOfAFileTakesNoSidecarWithIt(t *testing.T) {
	b := filledBench(t, ModeFile, 2)
	v := b.open()
	id := must(lookup(t, v.Root(), fileName(1)).xattrID())(t)
	planted := filepath.Join(b.dir, dataTmpPrefix+id.String())
	writeFile(t, planted, []byte("x"))
	r, err := v.Reencrypt(context.Background(), ReencryptOptions{Paths: []string{fileName(0)}})
	if err != nil || r.Temporaries != 1 {
		t.Fatalf("%v, %+v", err, r)
	}
	if _, err := os.Stat(planted); !errors.Is(err, os.ErrNotExist) {
		t.Error("the temporary is left")
	}
	b.close(v)
	b.checkFilled(2)
}

func TestReencryptAfterAPowerCutIsRefused(t *testing.T) {
	b := filledBench(t, ModeFile, 1)
	v := b.open()
	b.powerCut(v)
	v = b.open()
	if r, err := v.Reencrypt(context.Background(), ReencryptOptions{}); err == nil || !strings.Contains(err.Error(), "power cut") || r.Files != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}
