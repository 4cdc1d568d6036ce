package volume

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// namesLock lets operations on names go on beside each other, and waits for none
// to be under way.
type namesLock struct{ mu sync.RWMutex }

// hold keeps all others out until release, or is ctx's error.
func (l *namesLock) hold(ctx context.Context) (release func(), err error) {
	got := make(chan struct{})
	var mu sync.Mutex
	given := false
	go func() {
		l.mu.Lock()
		mu.Lock()
		defer mu.Unlock()
		if given { // nobody waits any more
			l.mu.Unlock()
			return
		}
		given = true
		close(got)
	}()
	select {
	case <-got:
		return l.mu.Unlock, nil
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	if given {
		l.mu.Unlock()
	}
	given = true
	return nil, ctx.Err()
}

// HoldNames keeps all names of the volume as they are until release: operations
// that change any wait. ctx bounds how long it waits for those under way.
func (v *Volume) HoldNames(ctx context.Context) (release func(), err error) {
	release, err = v.naming.hold(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for operations on names: %w", err)
	}
	return release, nil
}

// SettleFile returns when no change of the data file of this backing inode is under
// way that had begun before. It is an error if the store keeps one from being made.
func (v *Volume) SettleFile(ino uint64) error {
	release, err := v.HoldFile(ino)
	if err == nil {
		release()
	}
	return err
}

// HoldFile does so, and keeps the file as it is until release.
func (v *Volume) HoldFile(ino uint64) (release func(), err error) {
	var held []*file
	release = func() {
		for _, f := range held {
			f.write.Unlock()
			f.release()
		}
	}
	for _, n := range v.nodesOf(ino) {
		n.mu.Lock()
		f := n.file
		if f != nil {
			f.desc.take()
		}
		n.mu.Unlock()
		if f == nil {
			continue // not in use: whoever changes it has its state
		}
		f.write.Lock()
		held = append(held, f)
		if f.late != nil || v.late.of(ino) != nil {
			release()
			return nil, fmt.Errorf("a change of the file is not made yet: %w", unix.EIO)
		}
	}
	return release, nil
}

// nodesOf are the nodes of data files with that inode number: one, or more where a
// number was used again.
func (v *Volume) nodesOf(ino uint64) (out []*Node) {
	v.nodes.mu.Lock()
	defer v.nodes.mu.Unlock()
	for key, w := range v.nodes.m {
		if key.ino != ino {
			continue
		}
		if n := w.Value(); n != nil && n.IsRegular() {
			out = append(out, n)
		}
	}
	return out
}

// WriteBack brings what is cached outside of the volume into it (see Cache), and
// drops it. Files that are written meanwhile may be passed over.
func (v *Volume) WriteBack() {
	v.nodes.mu.Lock()
	var files []*Node
	for _, w := range v.nodes.m {
		if n := w.Value(); n != nil && n.IsRegular() {
			files = append(files, n)
		}
	}
	v.nodes.mu.Unlock()
	v.dropPages(files)
}
