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

// SettleFile returns when no change of the data file of a backing inode (InodeOf) is
// under way that had begun before. It is an error if the store keeps one from being made.
func (v *Volume) SettleFile(ino, generation uint64) error {
	release, err := v.HoldFile(ino, generation)
	if err == nil {
		release()
	}
	return err
}

// HoldFile does so, and keeps the file as it is until release.
func (v *Volume) HoldFile(ino, generation uint64) (release func(), err error) {
	n := v.Held(ino, generation)
	if n == nil || !n.IsRegular() {
		return func() {}, nil // not in use: whoever changes it has its state
	}
	n.mu.Lock()
	f := n.file
	if f != nil {
		f.desc.take()
	}
	n.mu.Unlock()
	if f == nil {
		return func() {}, nil
	}
	f.write.Lock()
	release = func() {
		f.write.Unlock()
		f.release()
	}
	if f.late != nil || v.late.of(ino) != nil {
		release()
		return nil, fmt.Errorf("a change of the file is not made yet: %w", unix.EIO)
	}
	return release, nil
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
