package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Stores that use inode numbers again, are interrupted all the time, or lose a write.

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
