package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestNothingIsAllocatedForEachBlock(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget; a run without it checks this")
	}
	v := newBench(t, ModeVolume).open()
	f := createFile(t, v.Root(), "f", pattern(maxWrite, 1))
	quietPool(v)                                     // allocations of others count, too
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties pools
	ctx := context.Background()
	data := pattern(maxWrite, 2)
	for name, call := range map[string]func(b []byte) (int, error){
		"write": func(b []byte) (int, error) { return f.WriteAt(ctx, b, 0) },
		"read":  func(b []byte) (int, error) { return f.ReadAt(ctx, b, 0) },
		// What is not on the border of blocks takes a block of scratch at either end.
		"write at an odd place": func(b []byte) (int, error) { return f.WriteAt(ctx, b[:len(b)-blk/2], 100) },
		"read at an odd place":  func(b []byte) (int, error) { return f.ReadAt(ctx, b[:len(b)-blk/2], 100) },
	} {
		allocs := func(blocks int) float64 {
			return testing.AllocsPerRun(20, func() {
				if _, err := call(data[:blocks*blk]); err != nil {
					t.Fatal(err)
				}
			})
		}
		if few, many := allocs(2), allocs(maxWrite/blk); few != many {
			t.Errorf("%s: %v allocations for 2 blocks, %v for %d", name, few, many, maxWrite/blk)
		}
	}
}

// A write is sealed from the caller's buffer into a redo slot, and written from
// that; a read is opened into the caller's buffer. Nobody else has the plaintext.
func TestNoSecondCopyOfPlaintextIsMade(t *testing.T) {
	b := tapped(t, ModeVolume)
	v := b.open()
	f := createFile(t, v.Root(), "f", nil)
	const size = 64 * blk
	data := private(t, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(data)

	elsewhere := 0
	b.store.(*tap).turn(passOn)
	v.backing = watchedBacking{v.backing, func(p []byte) {
		for _, s := range v.redo.changes.all {
			if len(p) <= len(s.mem) && inside(p, s.mem) {
				return
			}
		}
		elsewhere++
	}}
	if _, err := f.WriteAt(context.Background(), data, 0); err != nil {
		t.Fatal(err)
	}
	if elsewhere != 0 {
		t.Errorf("%d writes were not made from a redo slot", elsewhere)
	}
	needles := needlesIn(data)
	if n := findOutside(t, needles, data); n != 0 {
		t.Errorf("after a write %d blocks of %d are in memory a second time", n, len(needles))
	}

	clear(data)
	if _, err := f.ReadAt(context.Background(), data, 0); err != nil {
		t.Fatal(err)
	}
	if n := findOutside(t, needles, data); n != 0 {
		t.Errorf("after a read %d blocks of %d are in memory a second time", n, len(needles))
	}
	if n := findOutside(t, needles, nil); n != len(needles) {
		t.Errorf("%d blocks of %d are found where they are: the search is no good", n, len(needles))
	}
	runtime.KeepAlive(data)
}

// watchedBacking shows what is written.
type watchedBacking struct {
	Backing
	see func(b []byte)
}

func (w watchedBacking) Pwrite(fd int, b []byte, off int64) (int, error) {
	w.see(b)
	return w.Backing.Pwrite(fd, b, off)
}

func inside(part, whole []byte) bool {
	at, start := uintptr(unsafe.Pointer(&part[0])), uintptr(unsafe.Pointer(&whole[0]))
	return at >= start && at < start+uintptr(len(whole))
}

// private is memory that the test knows the place of, and the collector does not.
func private(t *testing.T, size int) []byte {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

// needlesIn takes a few bytes out of the middle of each block, inverted, so that
// they are not found themselves.
func needlesIn(data []byte) (needles [][]byte) {
	for at := blk / 2; at < len(data); at += blk {
		n := bytes.Clone(data[at : at+16])
		for i := range n {
			n[i] = ^n[i]
		}
		needles = append(needles, n)
	}
	return needles
}

// findOutside tells how many needles are in this process's memory, but for one place.
func findOutside(t *testing.T, needles [][]byte, place []byte) int {
	t.Helper()
	byStart := make([][]int, 1<<16) // by their first two bytes
	for i, n := range needles {
		start := int(^n[0])<<8 | int(^n[1])
		byStart[start] = append(byStart[start], i)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	chunk, zeros := private(t, 1<<20), make([]byte, 1<<20)
	found := map[int]bool{}
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || to-from > 256<<20 {
			continue // the race detector's own is large
		}
		for at := from; at < to; at += int64(len(chunk)) - 16 {
			n, _ := mem.ReadAt(chunk[:min(int64(len(chunk)), to-at)], at)
			if bytes.Equal(chunk[:n], zeros[:n]) {
				continue
			}
			for i := range max(0, n-15) {
				for _, k := range byStart[int(chunk[i])<<8|int(chunk[i+1])] {
					addr := uintptr(at) + uintptr(i)
					if matchesInverted(chunk[i:i+16], needles[k]) && !within(addr, place) && !within(addr, chunk) {
						found[k] = true
					}
				}
			}
		}
	}
	return len(found)
}

func within(addr uintptr, place []byte) bool {
	if len(place) == 0 {
		return false
	}
	start := uintptr(unsafe.Pointer(&place[0]))
	return addr >= start && addr < start+uintptr(len(place))
}

func matchesInverted(b, inverted []byte) bool {
	for i := range b {
		if b[i] != ^inverted[i] {
			return false
		}
	}
	return true
}
