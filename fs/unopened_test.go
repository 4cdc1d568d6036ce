package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestOfAnUnopenedDirectoryNothingIsKeptOnceItIsListed(t *testing.T) {
	m := new(Mount)
	if _, st := m.unopened.get(m, 5); st != fuse.EBADF {
		t.Errorf("a directory that nobody knows: %v", st)
	}
	h := newDirHandle(m, nil)
	m.unopened.byID = map[uint64]*dirHandle{5: h, 6: newDirHandle(m, nil)}
	m.lookers.add(5, h)
	if got, st := m.unopened.get(m, 5); got != h || !st.Ok() {
		t.Errorf("the next request finds another state, %v", st)
	}
	m.unopened.drop(m, 5)
	m.unopened.drop(m, 7)
	if len(m.unopened.byID) != 1 || m.lookers.n.Load() != 0 {
		t.Errorf("%d directories are left, want 1; %d lookers, want none", len(m.unopened.byID), m.lookers.n.Load())
	}
}
