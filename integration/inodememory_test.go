package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/volume"
)

// fill makes a directory of entries, without a mount.
func (m *mounted) fill(dir string, files int) {
	m.t.Helper()
	v, err := volume.Open(context.Background(), m.Backing, volume.Options{Providers: m.keys, StateDir: m.state})
	if err != nil {
		m.t.Fatal(err)
	}
	d, _, err := v.Root().Mkdir(dir, 0o755, volume.Owner{})
	for i := 0; err == nil && i < files; i++ {
		var n *volume.Node // a FIFO, which has no key
		if n, _, err = d.Mknod(fmt.Sprintf("file-%06d", i), unix.S_IFIFO|0o644, 0, 0, volume.Owner{}); err == nil {
			n.Forget()
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// heap is what is allocated and in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what pools held, and finalizers
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// What is remembered of an inode that the kernel knows is little, and gone when it
// forgets it.
func TestAnInodeTakesAKilobyteAndGivesItBack(t *testing.T) {
	const (
		files = 20_000
		most  = 1024 // bytes of an inode
	)
	m := newVolume(t, volume.ModeVolume)
	m.fill("dir", files)
	m.mount()
	stat := func(name string) {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(m.Dir, "dir", name), &st); err != nil {
			t.Fatal(err)
		}
	}
	stat("file-000000")
	before := heap()
	for i := range files {
		stat(fmt.Sprintf("file-%06d", i))
	}
	known := heap()
	each := float64(known-before) / files
	t.Logf("%.0f bytes for each of %d inodes", each, files)
	if each > most {
		t.Errorf("an inode takes %.0f bytes, want %d at most", each, most)
	}
	m.Mount.DropAll()
	for end := time.Now().Add(time.Minute); m.Mount.Counts().Snapshot()["FORGET"] < files-100; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the kernel forgot %d of %d inodes", m.Mount.Counts().Snapshot()["FORGET"], files)
		}
	}
	// The tables of maps stay, for Go's do not shrink: those of go-fuse, too.
	if left := float64(heap()) - float64(before); left > 0.25*float64(known-before) {
		t.Errorf("%.0f bytes are left of %d after the kernel forgot %d inodes", left, known-before, files)
	}
}
