package volume

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// disk is a file system of its own, small enough to be filled.
type disk struct {
	dir   string
	fills func(t *testing.T, dir string)
}

// smallDisks are those that this host can make, each with what of it runs out.
func smallDisks(t *testing.T) map[string]func(t *testing.T) disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small disk needs mount(2): run as root")
	}
	return map[string]func(t *testing.T) disk{
		"tmpfs blocks": func(t *testing.T) disk { return disk{tmpfs(t, "size=64m"), fillBlocks} },
		"tmpfs inodes": func(t *testing.T) disk { return disk{tmpfs(t, "nr_inodes=800"), fillInodes} },
		"ext4 blocks":  func(t *testing.T) disk { return disk{ext4(t), fillBlocks} },
		"ext4 inodes":  func(t *testing.T) disk { return disk{ext4(t), fillInodes} },
	}
}

func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	unmountAtEnd(t, dir)
	if err := unix.Setxattr(dir, "user.kmsfs.test", []byte("x"), 0); err != nil {
		t.Skipf("this kernel's tmpfs has no extended attributes of users: %v", err)
	}
	return dir
}

func ext4(t *testing.T) string {
	t.Helper()
	image := filepath.Join(fastPlace(t), "image")
	must(0, os.WriteFile(image, nil, 0o600))(t)
	must(0, os.Truncate(image, 64<<20))(t)
	if out, err := exec.Command("mkfs.ext4", "-q", "-m", "0", "-b", "4096", "-N", "1000", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v %s", err, out)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mount a loop device: %v %s", err, out)
	}
	unmountAtEnd(t, dir)
	return dir
}

func unmountAtEnd(t *testing.T, dir string) {
	t.Cleanup(func() {
		// What a buried volume has open stays so until this process ends.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

func (d disk) fill(t *testing.T) {
	t.Helper()
	dir := filepath.Join(d.dir, "others")
	must(0, os.Mkdir(dir, 0o700))(t)
	d.fills(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "one more"), []byte("x"), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	_ = os.Remove(filepath.Join(dir, "one more"))
}

func (d disk) empty(t *testing.T) {
	t.Helper()
	must(0, os.RemoveAll(filepath.Join(d.dir, "others")))(t)
}

// fillBlocks leaves a file system without a block. It comes back to it: what was
// deleted of late is free only some time later.
func fillBlocks(t *testing.T, dir string) {
	f := must(os.Create(filepath.Join(dir, "f")))(t)
	defer f.Close()
	end := int64(0)
	for range 3 {
		must(0, unix.Syncfs(int(f.Fd())))(t)
		for size := int64(64 << 20); size >= 4096; {
			err := unix.Fallocate(int(f.Fd()), 0, end, size)
			switch err {
			case nil:
				end += size
			case unix.ENOSPC:
				size /= 2
			default:
				t.Fatal(err)
			}
		}
	}
}

func fillInodes(t *testing.T, dir string) {
	for i := 0; ; i++ {
		err := unix.Mknod(filepath.Join(dir, fmt.Sprint(i)), unix.S_IFREG|0o600, 0)
		if err == unix.ENOSPC {
			return
		}
		must(0, err)(t)
	}
}

func TestAVolumeIsMountedAfterAKillAlthoughTheDiskIsFull(t *testing.T) {
	for name, makeDisk := range smallDisks(t) {
		t.Run(name, func(t *testing.T) {
			d := makeDisk(t)
			kills, finished := 0, 0
			b := newBenchIn(t, d.dir, ModeVolume, newFakeKMS())
			for _, o := range operations() {
				old, new, changes := o.outcome(t, b)
				instants := sampleOf(o.name, *killAll, 41, 131)
				for at := 1; at <= changes; at++ {
					for when := range deaths {
						if !instants.takes() {
							continue
						}
						reached, repaired := o.dieAndFill(t, d, b, old, new, death{at, when})
						if reached {
							kills++
						}
						if repaired {
							finished++
						}
						if t.Failed() {
							t.Fatalf("%s, %v; the log: %s", o.name, death{at, when}, b.log)
						}
					}
				}
			}
			t.Logf("%d kills; after %d of them the next mount repaired something", kills, finished)
			if finished == 0 {
				t.Error("there was nothing to repair")
			}
		})
	}
}

// dieAndFill kills the operation, fills the disk, and looks at what the next mount
// makes of it, and whether files can be removed.
func (o *operation) dieAndFill(t *testing.T, d disk, b *bench, old, new map[string]thing, at death) (reached, repaired bool) {
	t.Helper()
	k := &tap{Backing: o.store(), through: idle}
	v := b.open(withTap(k))
	s := o.set(t, v)
	kill := &killer{death: at, b: b}
	k.turn(kill.through)
	err := o.run(s)
	if !kill.died {
		must(0, err)(t)
		k.turn(idle)
		emptied(t, v)
		b.close(v)
		return false, false
	}
	kill.bury(t, v)
	d.fill(t)
	defer d.empty(t)
	b.log.Reset()
	v, err = b.tryOpen(withTap(&tap{Backing: o.store(), through: idle}))
	if err != nil {
		t.Errorf("mount: %v", err)
		return true, false
	}
	repaired = !strings.Contains(b.log.String(), "changes_finished=0 operations_settled=0")
	if err := agree(seen(t, v), old, new, o.steps); err != nil {
		t.Error(err)
	}
	b.close(v)
	for _, f := range b.mustFsck(FsckOptions{}).Findings {
		if o.mayLeave == "" && !f.Harmless {
			t.Errorf("fsck: %+v", f)
		}
	}
	v, err = b.tryOpen(withTap(&tap{Backing: o.store(), through: idle}))
	if err != nil {
		t.Errorf("mount again: %v", err)
		return true, repaired
	}
	emptied(t, v)
	b.close(v)
	return true, repaired
}

func TestManyChangesAreReplayedInTheSpaceOfOne(t *testing.T) {
	const files = 12 // more than the reserve has room for
	for name, makeDisk := range smallDisks(t) {
		if strings.HasSuffix(name, "inodes") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			d := makeDisk(t)
			b := newBenchIn(t, d.dir, ModeVolume, newFakeKMS())
			k := &tap{Backing: System{}, through: idle}
			v := b.open(withTap(k))
			quietPool(v)
			var nodes []*Node
			for i := range files {
				nodes = append(nodes, createFile(t, v.Root(), fmt.Sprint(i), nil))
			}
			kill := &killer{b: b}
			armed, dead := make(chan struct{}), make(chan struct{})
			k.turn(func(c call, do func(int) error) error {
				select {
				case <-dead:
				default:
					if c.op == "pwrite" { // the first of each: what it is of, is armed
						armed <- struct{}{}
						<-dead
					}
				}
				return kill.through(c, do)
			})
			var writers sync.WaitGroup
			for i, n := range nodes {
				writers.Go(func() {
					if _, err := n.WriteAt(t.Context(), pattern(maxWrite, byte(i)), 0); err == nil {
						t.Error("a write of the killed mount succeeded")
					}
				})
			}
			for range files {
				<-armed
			}
			kill.mu.Lock()
			kill.die()
			kill.mu.Unlock()
			close(dead)
			writers.Wait()
			kill.bury(t, v)

			d.fill(t)
			defer d.empty(t)
			b.log.Reset()
			v = b.open()
			if want := fmt.Sprintf("changes_finished=%d ", files); !strings.Contains(b.log.String(), want) {
				t.Errorf("%q is not in the log: %s", want, b.log)
			}
			for i := range files {
				if got := readAll(t, lookup(t, v.Root(), fmt.Sprint(i))); !bytes.Equal(got, pattern(maxWrite, byte(i))) {
					t.Errorf("file %d has %d bytes, and not what was armed", i, len(got))
				}
			}
			if n := reserved(t, b); n == 0 {
				t.Error("nothing is reserved again")
			}
			b.close(v)
		})
	}
}

// reserved tells how many files of the reserve have all their space.
func reserved(t *testing.T, b *bench) (whole int) {
	t.Helper()
	for name := range reserveNames() {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(b.dir, metaDir, name), &st) == nil && st.Blocks*512 >= reserveSize {
			whole++
		}
	}
	return whole
}

func TestAFullDiskIsMountedForWritingSoThatItCanBeEmptied(t *testing.T) {
	for name, makeDisk := range smallDisks(t) {
		t.Run(name, func(t *testing.T) {
			d := makeDisk(t)
			b := newBenchIn(t, d.dir, ModeVolume, newFakeKMS())
			const owner = 54321
			must(0, os.Lchown(filepath.Join(b.dir, metaDir), owner, owner))(t)
			v := b.open()
			if n := reserved(t, b); n != reserveFiles {
				t.Fatalf("%d files are reserved", n)
			}
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(b.dir, metaDir, "reserve.1"), &st); err != nil || st.Uid != owner || st.Mode&0o777 != 0o600 {
				t.Errorf("what root reserves in the volume of somebody else: %v, uid %d, mode %o", err, st.Uid, st.Mode)
			}
			for _, name := range []string{"overwritten", "cut", "removed"} {
				createFile(t, v.Root(), name, pattern(50000, 1))
			}
			b.close(v)

			d.fill(t)
			metaBefore := fmt.Sprint(os.ReadDir(filepath.Join(b.dir, metaDir)))
			v = b.open(func(o *Options) { o.ReadOnly = true })
			readAll(t, lookup(t, v.Root(), "cut"))
			b.close(v)
			if after := fmt.Sprint(os.ReadDir(filepath.Join(b.dir, metaDir))); after != metaBefore || reserved(t, b) != reserveFiles {
				t.Errorf("reading changed .kmsfs: %s, then %s", metaBefore, after)
			}
			v = b.open()
			left := reserved(t, b)
			second, err := b.tryOpen()
			if !errors.As(err, new(*InUseError)) || reserved(t, b) != left {
				t.Errorf("a second mount: %v; %d files reserved, then %d", err, left, reserved(t, b))
			}
			if err == nil {
				b.close(second)
			}
			writeAll(t, lookup(t, v.Root(), "overwritten"), pattern(8192, 2), 4096)
			if err := lookup(t, v.Root(), "cut").Truncate(t.Context(), 10); err != nil {
				t.Errorf("truncate: %v", err)
			}
			if err := v.Root().Unlink("removed"); err != nil {
				t.Errorf("unlink: %v", err)
			}
			if got := readAll(t, lookup(t, v.Root(), "overwritten")); !bytes.Equal(got[4096:4096+8192], pattern(8192, 2)) {
				t.Error("what was overwritten differs")
			}
			b.close(v)
			if r := b.mustFsck(FsckOptions{}); len(r.Findings) != 0 {
				t.Errorf("fsck: %q", kinds(r))
			}

			// As long as there is none, it takes room from nobody.
			for name := range reserveNames() {
				_ = os.Remove(filepath.Join(b.dir, metaDir, name))
			}
			d.empty(t)
			d.fill(t)
			if v, err := b.tryOpen(); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("without a reserve: %v", err)
				if err == nil {
					b.close(v)
				}
			}
			d.empty(t)
			b.close(b.open())
			if n := reserved(t, b); n != reserveFiles {
				t.Errorf("%d files are reserved again", n)
			}
		})
	}
}
