package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Bugs by which other encrypted file systems lost data, and that no other test
// is about. docs/REGRESSIONS.md has the whole list.

// reusing is a store that gives every data file the same inode number and no
// birth time, and every directory another, as one does that uses numbers again at
// once. It is a true store as long as there is one of each at a time.
type reusing struct {
	System
	root uint64
}

func (k *reusing) Statx(dirfd int, name string, st *unix.Statx_t) error {
	err := k.System.Statx(dirfd, name, st)
	switch {
	case err != nil || st.Ino == k.root:
	case st.Mode&unix.S_IFMT == unix.S_IFREG:
		st.Ino, st.Btime = 777, unix.StatxTimestamp{}
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		st.Ino, st.Btime = 778, unix.StatxTimestamp{}
	}
	return err
}

func TestAnInodeNumberThatIsUsedAgainBringsNothingOfWhatWasRemoved(t *testing.T) {
	b := newBench(t, ModeFile)
	var root unix.Stat_t
	if err := unix.Stat(b.dir, &root); err != nil {
		t.Fatal(err)
	}
	v := b.open(func(o *Options) { o.Backing = &reusing{root: root.Ino} })
	ids, held := map[crypto.ID]bool{}, []*Node{} // nodes that somebody still has
	const rounds = 40
	for i := range rounds {
		dir, _, err := v.Root().Mkdir("dir", 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		name, want := fmt.Sprint("file ", i), pattern(1+i*500, byte(i))
		n := createFile(t, dir, name, want)
		if n.Ino() != 777 || dir.Ino() != 778 {
			t.Fatalf("inodes %d and %d", n.Ino(), dir.Ino())
		}
		ids[fileID(t, n)] = true
		ids[must(dir.dirID())(t)] = true
		if got := readAll(t, lookup(t, lookup(t, v.Root(), "dir"), name)); !bytes.Equal(got, want) {
			t.Fatalf("%s holds something else", name)
		}
		checkSeal(t, n)
		if i == rounds-1 {
			break
		}
		if i%2 == 0 { // under the name under which it was made, or another
			if err := dir.Rename(name, dir, "moved", 0); err != nil {
				t.Fatal(err)
			}
			name = "moved"
		}
		if err := dir.Unlink(name); err != nil {
			t.Fatal(err)
		}
		if err := v.Root().Rmdir("dir"); err != nil {
			t.Fatal(err)
		}
		n.Forget()
		dir.Forget()
		held = append(held, n, dir)
	}
	if len(ids) != 2*rounds || len(held) != 2*rounds-2 {
		t.Errorf("%d IDs of %d files and directories", len(ids), 2*rounds)
	}
	v = b.reopened(v)
	if got := readAll(t, lookup(t, lookup(t, v.Root(), "dir"), fmt.Sprint("file ", rounds-1))); !bytes.Equal(got, pattern(1+(rounds-1)*500, rounds-1)) {
		t.Error("the last file holds something else")
	}
	runtime.KeepAlive(held)
}

func TestATruncationThatFailsHalfwayIsDoneOrNot(t *testing.T) {
	const old = 3*crypto.BlockSize + 1000
	for _, size := range []int64{0, 1, 100, crypto.BlockSize, 2*crypto.BlockSize + 5, 3*crypto.BlockSize + 999, 3*crypto.BlockSize + 1001, 9 * crypto.BlockSize, 1 << 20} {
		for _, call := range []string{"pwrite", "ftruncate", "pread"} {
			t.Run(fmt.Sprintf("to %d, failing %s", size, call), func(t *testing.T) {
				for nth := 1; ; nth++ {
					b := newBench(t, ModeVolume)
					k := newFaulty()
					v := b.open(func(o *Options) { o.Backing = k })
					before := pattern(old, 1)
					n := createFile(t, v.Root(), "file", before)
					quietPool(v)
					after := append(bytes.Clone(before[:min(old, size)]), make([]byte, max(0, size-old))...)
					seen := 0
					failNow := func() error {
						if seen++; seen == nth {
							return unix.EIO
						}
						return nil
					}
					k.set(func() {
						k.fail = func(c, _ string) error {
							if c == call {
								return failNow()
							}
							return nil
						}
						if call == "pwrite" {
							k.pwrite = func(b []byte, _ int64) (int, error) { return len(b) / 2, failNow() }
						}
					})
					err := n.Truncate(context.Background(), size)
					k.set(func() { k.fail, k.pwrite = nil, nil })
					if done := seen < nth; done != (err == nil) {
						// A failure in what only tidies up may stay unsaid.
						if err != nil || !bytes.Equal(readAll(t, n), after) {
							t.Fatalf("call %d of %d failed: %v", nth, seen, err)
						}
					}
					for range 2 {
						if got := readAll(t, n); !bytes.Equal(got, after) && (err == nil || !bytes.Equal(got, before)) {
							t.Fatalf("call %d: %v; %d bytes that are neither old nor new", nth, err, len(got))
						}
						checkSeal(t, n)
						b.close(v)
						v = b.open()
						n = lookup(t, v.Root(), "file")
					}
					if err := n.Truncate(context.Background(), size); err != nil {
						t.Fatalf("again: %v", err)
					}
					if got := readAll(t, n); !bytes.Equal(got, after) {
						t.Fatal("again: the file differs")
					}
					b.close(v)
					if seen < nth {
						return
					}
				}
			})
		}
	}
}

func TestAFileOfWhichAPowerCutLeftOnlyTheHeaderCanBeWrittenAnew(t *testing.T) {
	for _, size := range []int64{crypto.HeaderSize, crypto.HeaderSize + 20, crypto.RecordOffset, 10, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			b := newBench(t, ModeFile)
			v := b.open()
			want := pattern(3*crypto.BlockSize, 1)
			path := b.backingFile(createFile(t, v.Root(), "file", want))
			createFile(t, v.Root(), "other", want)
			b.powerCut(v)
			truncate(t, path, size)
			v = b.open()
			n := lookup(t, v.Root(), "file")
			if size >= crypto.HeaderSize {
				if got := readAll(t, n); len(bytes.TrimLeft(got, "\x00")) != 0 {
					t.Errorf("read %d bytes that nobody wrote", len(got))
				}
				writeAll(t, n, want, 0)
			} else { // no record is left: damage, of this file alone
				_, err := n.ReadAt(context.Background(), make([]byte, 10), 0)
				wantIntegrity(t, err, `"file"`)
				if err := v.Root().Unlink("file"); err != nil {
					t.Fatal(err)
				}
				createFile(t, v.Root(), "file", want)
			}
			v = b.reopened(v)
			for _, name := range []string{"file", "other"} {
				if got := readAll(t, lookup(t, v.Root(), name)); !bytes.Equal(got, want) {
					t.Errorf("%s differs", name)
				}
			}
		})
	}
}

// fullDisk is a store on which nothing that takes space succeeds while full.
type fullDisk struct {
	*faulty
	full bool
	fell int // Fallocate calls, but for redo slots
}

func (k *fullDisk) no(takes bool) error {
	if k.full && takes {
		return unix.ENOSPC
	}
	return nil
}

func (k *fullDisk) Openat(dirfd int, name string, flags int, mode uint32) (int, error) {
	if err := k.no(flags&unix.O_CREAT != 0 || flags&unix.O_TMPFILE == unix.O_TMPFILE); err != nil {
		return -1, err
	}
	return k.faulty.Openat(dirfd, name, flags, mode)
}

func (k *fullDisk) Mkdirat(dirfd int, name string, mode uint32) error {
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Mkdirat(dirfd, name, mode)
}

func (k *fullDisk) Symlinkat(target string, dirfd int, name string) error {
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Symlinkat(target, dirfd, name)
}

func (k *fullDisk) Fallocate(fd int, mode uint32, off, length int64) error {
	if of, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); !strings.Contains(of, metaDir+"/redo/") {
		k.fell++
	}
	if err := k.no(true); err != nil {
		return err
	}
	return k.faulty.Fallocate(fd, mode, off, length)
}

func TestAFullDiskLeavesAVolumeThatOpensAndCanBeEmptied(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	want := pattern(10000, 1)
	for _, name := range []string{"kept", "removed", strings.Repeat("long", 60)} {
		createFile(t, v.Root(), name, want)
	}
	if _, _, err := v.Root().Mkdir("dir", 0o755, Owner{}); err != nil {
		t.Fatal(err)
	}
	b.close(v)

	k := &fullDisk{faulty: newFaulty()}
	v = b.open(func(o *Options) { o.Backing = k })
	quietPool(v)
	for _, name := range []string{"kept", "removed"} { // their key is asked for once
		readAll(t, lookup(t, v.Root(), name))
	}
	writeAll(t, lookup(t, v.Root(), "kept"), want, 0) // with a redo slot, so that there is one
	k.full = true
	growing := func(b []byte, off int64) (int, error) {
		if off >= crypto.BlockOffset(2) {
			return 0, unix.ENOSPC
		}
		return len(b), nil
	}
	k.set(func() { k.pwrite = growing })
	for what, op := range map[string]func() error{
		"create":  func() error { _, _, err := v.Root().Create("new", 0o644, Owner{}); return err },
		"mkdir":   func() error { _, _, err := v.Root().Mkdir("newdir", 0o755, Owner{}); return err },
		"symlink": func() error { _, _, err := v.Root().Symlink("newlink", "target", Owner{}); return err },
		"long":    func() error { _, _, err := v.Root().Create(strings.Repeat("l", 250), 0o644, Owner{}); return err },
		"append": func() error {
			_, err := lookup(t, v.Root(), "kept").WriteAt(context.Background(), pattern(50000, 2), 10000)
			return err
		},
	} {
		if err := op(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s: %v, want ENOSPC", what, err)
		}
	}
	if got := readAll(t, lookup(t, v.Root(), "kept")); !bytes.Equal(got, want) {
		t.Error("what was there differs")
	}
	// What gives space back works.
	if err := v.Root().Unlink("removed"); err != nil {
		t.Error(err)
	}
	if err := v.Root().Rmdir("dir"); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if k.fell != 0 {
		t.Errorf("%d calls of fallocate: nothing is allocated ahead", k.fell)
	}
	// Nobody can begin to write to it, and that harms nothing.
	if v, err := b.tryOpen(func(o *Options) { o.Backing = k }); err == nil {
		b.close(v)
		t.Error("a volume on a full disk opened for writing")
	} else if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("open on a full disk: %v", err)
	}
	v = b.open(func(o *Options) { o.Backing = k; o.ReadOnly = true })
	if got := readAll(t, lookup(t, v.Root(), "kept")); !bytes.Equal(got, want) {
		t.Error("what was there differs when read only")
	}
	b.close(v)
	k.full = false
	k.set(func() { k.pwrite = nil })
	v = b.open()
	names := list(t, v.Root())
	slices.Sort(names)
	if !slices.Equal(names, []string{"kept", strings.Repeat("long", 60)}) {
		t.Errorf("it holds %q", names)
	}
	for _, name := range names {
		if got := readAll(t, lookup(t, v.Root(), name)); !bytes.Equal(got, want) {
			t.Errorf("%q differs", name)
		}
	}
}

// grudging is a store whose reads and writes are interrupted by signals and cut
// short, all the time.
type grudging struct {
	System
	mu    sync.Mutex
	calls int
}

func (k *grudging) portion(n int) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.calls%3 == 0 {
		return 0, unix.EINTR
	}
	return min(n, 1+k.calls%1500), nil
}

func (k *grudging) Pread(fd int, b []byte, off int64) (int, error) {
	n, err := k.portion(len(b))
	if err != nil {
		return -1, err
	}
	return k.System.Pread(fd, b[:n], off)
}

func (k *grudging) Pwrite(fd int, b []byte, off int64) (int, error) {
	n, err := k.portion(len(b))
	if err != nil {
		return -1, err
	}
	return k.System.Pwrite(fd, b[:n], off)
}

func TestInterruptedAndShortReadsAndWritesAreFinished(t *testing.T) {
	b := newBench(t, ModeFile)
	k := &grudging{}
	v := b.open(func(o *Options) { o.Backing = k })
	want := pattern(100_000, 1)
	n := createFile(t, v.Root(), "file", want)
	writeAll(t, n, pattern(9000, 2), 5000)
	copy(want[5000:], pattern(9000, 2))
	if err := n.Truncate(context.Background(), 77_777); err != nil {
		t.Fatal(err)
	}
	want = want[:77_777]
	if got := readAll(t, n); !bytes.Equal(got, want) {
		t.Error("the file differs")
	}
	checkSeal(t, n)
	b.close(v)
	if k.calls < 200 {
		t.Fatalf("only %d calls", k.calls)
	}
	v = b.open()
	if got := readAll(t, lookup(t, v.Root(), "file")); !bytes.Equal(got, want) {
		t.Error("the file differs on a store that is well")
	}
}

func TestAStoreThatLosesAWriteIsFoundOut(t *testing.T) {
	damaged := 0
	for nth := 1; ; nth++ {
		b := newBench(t, ModeVolume)
		v := b.open()
		old := pattern(5*crypto.BlockSize+100, 1)
		createFile(t, v.Root(), "file", old)
		b.close(v)
		k := newFaulty()
		v = b.open(func(o *Options) { o.Backing = k })
		quietPool(v)
		n := lookup(t, v.Root(), "file")
		lost := &losing{faulty: k, nth: nth}
		v.backing = lost
		next := bytes.Clone(old)
		for i, off := range []int{0, 2 * crypto.BlockSize, 5*crypto.BlockSize + 50} {
			part := pattern(crypto.BlockSize, byte(50+i))
			writeAll(t, n, part, int64(off))
			next = append(next[:off], append(part, next[min(len(next), off+len(part)):]...)...)
		}
		v.backing = k
		b.close(v)
		v = b.open()
		got, err := tryReadAll(lookup(t, v.Root(), "file"))
		switch {
		case lost.seen >= nth && errors.Is(err, ErrIntegrity):
			damaged++
		case err != nil:
			t.Fatalf("write %d lost: %v", nth, err)
		case !bytes.Equal(got, next):
			t.Errorf("write %d lost: %d bytes are read that were never the file's", nth, len(got))
		}
		b.close(v)
		if lost.seen < nth {
			break
		}
	}
	if damaged == 0 {
		t.Error("no lost write was noticed")
	}
}

// losing is a store that says that it made its nth write of a file, and did not.
type losing struct {
	*faulty
	nth, seen int
}

func (k *losing) Pwrite(fd int, b []byte, off int64) (int, error) {
	if k.seen++; k.seen == k.nth {
		return len(b), nil
	}
	return k.faulty.Pwrite(fd, b, off)
}

func TestStatAndReadAgreeOnAFileCutAnywhereInItsLastBlocks(t *testing.T) {
	b := newBench(t, ModeVolume)
	v := b.open()
	const size = 2*crypto.BlockSize + 300
	want := pattern(size, 1)
	n := createFile(t, v.Root(), "file", want)
	path := b.backingFile(n)
	b.powerCut(v)
	whole := readPath(t, path)
	v = b.open() // what is cut is accepted now
	for cut := range len(whole) - crypto.HeaderSize + 1 {
		length := len(whole) - cut
		if cut > 400 && cut%97 != 0 && length%crypto.CipherBlockSize > 300 {
			continue
		}
		if err := os.WriteFile(path, whole[:length], 0o644); err != nil {
			t.Fatal(err)
		}
		n := lookup(t, v.Root(), "file")
		n.Forget() // its file state
		a, err := n.Attr()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, size+crypto.BlockSize)
		m, err := n.ReadAt(context.Background(), buf, 0)
		// A tail that was cut does not authenticate; of less than an overhead
		// nothing is left.
		if tail := (length - crypto.HeaderSize) % crypto.CipherBlockSize; tail > crypto.BlockOverhead && cut > 0 {
			wantIntegrity(t, err, `"file"`, fmt.Sprint("block ", a.Size/crypto.BlockSize))
			continue
		}
		if err != nil || uint64(m) != a.Size || !bytes.Equal(buf[:m], want[:m]) {
			t.Fatalf("backing file of %d bytes: stat says %d, read gives %d, %v", length, a.Size, m, err)
		}
	}
}

func TestLongAndShortNamesTakeEachOthersPlace(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	long := func(c string) string { return strings.Repeat(c, 240) }
	suffixed := func() (out []string) {
		entries, err := os.ReadDir(b.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), crypto.LongPrefix) {
				out = append(out, e.Name())
			}
		}
		return out
	}
	content := map[string]string{"short": "1", long("a"): "2", long("b"): "3", "other": "4"}
	for name, c := range content {
		createFile(t, v.Root(), name, []byte(c))
	}
	for _, r := range []struct {
		from, to string
		flags    uint32
	}{
		{"short", long("c"), 0},              // short to long
		{long("a"), "brief", 0},              // long to short
		{long("b"), long("d"), 0},            // long to long
		{long("c"), "other", 0},              // long over short
		{"brief", long("d"), 0},              // short over long
		{"other", long("d"), RenameExchange}, // one for the other
	} {
		if err := v.Root().Rename(r.from, v.Root(), r.to, r.flags); err != nil {
			t.Fatalf("%.9s to %.9s: %v", r.from, r.to, err)
		}
		c := content[r.from]
		if r.flags == RenameExchange {
			content[r.from] = content[r.to]
		} else {
			delete(content, r.from)
		}
		content[r.to] = c
		v = b.reopened(v)
		names := list(t, v.Root())
		if len(names) != len(content) {
			t.Errorf("%.9s to %.9s: listed %d names, want %d", r.from, r.to, len(names), len(content))
		}
		longs := 0
		for name, c := range content {
			if got := readAll(t, lookup(t, v.Root(), name)); string(got) != c {
				t.Errorf("%.9s holds %q, want %q", name, got, c)
			}
			if len(name) > 200 {
				longs++
			}
		}
		// Each long name is an entry and the file of its name.
		if got := suffixed(); len(got) != 2*longs {
			t.Errorf("%.9s to %.9s: %d long names make %q", r.from, r.to, longs, got)
		}
	}
}

// A sync tool copies data and sidecars at different times, and passes over
// changes that keep the size.
func TestDataAndSidecarsFromDifferentSyncsOpenOrAreRefused(t *testing.T) {
	const n = 12
	b := filledBench(t, ModeFile, n)
	copyOf := func(keep func(string) bool) map[string][]byte {
		out := map[string][]byte{}
		for name := range hashTree(t, b.dir, keep) {
			out[name] = readFile(t, b.dir, name)
		}
		return out
	}
	put := func(files map[string][]byte) {
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(b.dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	oldSidecars, oldData := copyOf(sidecarFiles), copyOf(dataFiles)
	b.mustRewrap(uriA, uriB)
	newSidecars := copyOf(sidecarFiles)
	v := b.open()
	for i := 1; i < n; i++ { // of the same size
		writeAll(t, lookup(t, v.Root(), fileName(i)), bytes.Repeat([]byte{'n'}, i), 0)
	}
	b.close(v)

	// Old data beside the sidecars of a rewrap.
	put(oldData)
	b.checkFilled(n)
	// Sidecars from before the rewrap: their key was given up since.
	put(oldSidecars)
	v = b.open()
	for i := 1; i < n; i++ {
		_, err := tryReadAll(lookup(t, v.Root(), fileName(i)))
		wantIntegrity(t, err, fileName(i), metaDir+"/keys/", "none of its entries")
	}
	b.close(v)
	// The next sync brings the rest, and nothing was lost.
	put(newSidecars)
	b.checkFilled(n)
}
