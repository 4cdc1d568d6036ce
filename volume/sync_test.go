package volume

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// syncRecorder is a Backing that remembers what was made durable, by path.
type syncRecorder struct {
	System
	mu    sync.Mutex
	paths []string
}

func (s *syncRecorder) note(call string, fd int) {
	path, err := os.Readlink(procDescriptor(fd))
	if err != nil {
		path = err.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = append(s.paths, call+" "+path)
}

func (s *syncRecorder) Fsync(fd int) error { s.note("fsync", fd); return s.System.Fsync(fd) }
func (s *syncRecorder) Fdatasync(fd int) error {
	s.note("fdatasync", fd)
	return s.System.Fdatasync(fd)
}

// take returns what was recorded since, below dir, each once and sorted.
func (s *syncRecorder) take(dir string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, p := range s.paths {
		out = append(out, strings.Replace(p, dir, "", 1))
	}
	s.paths = nil
	slices.Sort(out)
	return slices.Compact(out)
}

func TestFsyncMakesDurableAllThatAFileOrDirectoryNeeds(t *testing.T) {
	b := newBench(t, ModeFile)
	rec := &syncRecorder{}
	v := b.open(func(o *Options) { o.Backing = rec })
	mkdir := func(parent *Node, name string) *Node {
		t.Helper()
		n, _, err := parent.Mkdir(name, 0o755, Owner{})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	outer := mkdir(v.Root(), "outer")
	inner := mkdir(outer, "inner")
	file := createFile(t, inner, "file", []byte("content"))
	id := file.file.id
	at := func(n *Node, more ...string) string {
		return "/" + filepath.Join(append([]string{n.BackingPath()}, more...)...)
	}
	want := func(n *Node, dataOnly bool, what string, paths ...string) {
		t.Helper()
		rec.take(b.dir)
		if err := n.Sync(dataOnly); err != nil {
			t.Fatal(err)
		}
		got := rec.take(b.dir)
		slices.Sort(paths)
		if !slices.Equal(got, paths) {
			t.Errorf("%s: made durable:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(paths, "\n"))
		}
	}
	shelf := filepath.Dir("/" + sidecarPath(id))
	want(file, true, "the first fdatasync of a file",
		"fdatasync "+at(file),
		"fsync /"+sidecarPath(id), "fsync "+shelf, "fsync "+filepath.Dir(shelf),
		"fsync "+at(inner, recordName), "fsync "+at(inner), "fsync "+at(outer),
		"fsync "+at(outer, recordName), "fsync ")
	want(file, true, "the next", "fdatasync "+at(file))
	want(file, false, "an fsync", "fsync "+at(file))
	want(inner, false, "fsync of a directory that is durable", "fsync "+at(inner))
	fresh := mkdir(inner, "fresh")
	want(fresh, false, "fsync of a new directory", "fsync "+at(fresh), "fsync "+at(fresh, recordName), "fsync "+at(inner))
	if err := inner.Rename("fresh", outer, "moved", 0); err != nil {
		t.Fatal(err)
	}
	want(fresh, false, "fsync of a renamed directory", "fsync "+at(fresh), "fsync "+at(fresh, recordName), "fsync "+at(outer))
}
