package volume

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"kmsfs/crypto"
)

// Writers fill the same ten blocks with one value each, truncaters cut and grow
// the file, readers must never see a mixture: every call is all or nothing.
func TestReadersWritersAndTruncatersOfOneFileSeeWholeChanges(t *testing.T) {
	const blocks = 10
	b := newBench(t, ModeVolume)
	v := b.open()
	n := createFile(t, v.Root(), "file", make([]byte, blocks*crypto.BlockSize))
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for i := range 3 {
		writers.Go(func() {
			for j := range 150 {
				value := byte(1 + (i*150+j)%255)
				data := bytes.Repeat([]byte{value}, blocks*crypto.BlockSize)
				if m, err := n.WriteAt(context.Background(), data, 0); err != nil || m != len(data) {
					t.Errorf("write: %d, %v", m, err)
				}
			}
		})
	}
	writers.Go(func() {
		rng := rand.New(rand.NewPCG(1, 2))
		for range 150 {
			if err := n.Truncate(context.Background(), int64(rng.IntN(2*blocks*crypto.BlockSize))); err != nil {
				t.Errorf("truncate: %v", err)
			}
		}
	})
	for range 3 {
		readers.Go(func() {
			buf := make([]byte, 2*blocks*crypto.BlockSize)
			for {
				select {
				case <-stop:
					return
				default:
				}
				m, err := n.ReadAt(context.Background(), buf, 0)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				if err := onlyOneValue(buf[:m]); err != nil {
					t.Error(err)
					return
				}
				if _, err := n.Attr(); err != nil {
					t.Errorf("stat: %v", err)
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	checkSeal(t, n)
}

// onlyOneValue checks that b holds one value, then only zeros.
func onlyOneValue(b []byte) error {
	value := byte(0)
	for i, x := range b {
		switch {
		case i == 0:
			value = x
		case x != value && x != 0:
			return fmt.Errorf("byte %d is %d, the first is %d", i, x, value)
		case x == 0:
			if len(bytes.TrimLeft(b[i:], "\x00")) > 0 {
				return fmt.Errorf("zeros at %d, and something after them", i)
			}
			return nil
		}
	}
	return nil
}

// Everything at once on one volume with few descriptors: what matters is that
// nothing fails, races or deadlocks, and that every file is whole at the end.
func TestManyOperationsAtOnceLeaveAWholeVolume(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open(func(o *Options) { o.MaxDescriptors = 6 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 3))
			dirName := fmt.Sprint("dir", i%3)
			if i < 3 {
				if _, _, err := v.Root().Mkdir(dirName, 0o755, Owner{}); err != nil {
					t.Error(err)
					return
				}
			}
			for j := range 60 {
				name, moved := fmt.Sprint("f", i, "-", j), fmt.Sprint("g", i, "-", j)
				n, _, err := v.Root().Create(name, 0o644, Owner{})
				if err != nil {
					t.Error(err)
					return
				}
				data := pattern(rng.IntN(20000)+1, byte(j))
				if _, err := n.WriteAt(context.Background(), data, 0); err != nil {
					t.Error(err)
				}
				dest := v.Root()
				if d, _, err := v.Root().Lookup(dirName); err == nil {
					dest = d
				}
				if err := v.Root().Rename(name, dest, moved, 0); err != nil {
					t.Error(err)
				}
				if rng.IntN(2) == 0 {
					n.Forget()
				}
				if got, err := tryReadAll(n); err != nil || !bytes.Equal(got, data) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				if rng.IntN(3) == 0 {
					if err := dest.Unlink(moved); err != nil {
						t.Error(err)
					}
					n.Forget()
				}
			}
		})
	}
	wg.Wait()
	v = b.reopened(v)
	for _, name := range list(t, v.Root()) {
		n := lookup(t, v.Root(), name)
		if !n.IsDir() {
			checkSeal(t, n)
			continue
		}
		for _, inner := range list(t, n) {
			checkSeal(t, lookup(t, n, inner))
		}
	}
}
