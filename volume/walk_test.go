package volume

import (
	"bytes"
	"slices"
	"testing"
)

// The walk sees what a listing sees, in its order.
func TestAWalkFindsTheFilesInTheOrderOfListings(t *testing.T) {
	b := newBench(t, ModeFile)
	v := b.open()
	files := fill(t, v, 40)
	createFile(t, v.Root(), string(bytes.Repeat([]byte("long name "), 25)), []byte("content"))
	files++
	var want []uint64
	var first *Node // of one name, so that it is known where it is
	visit(t, v.Root(), func(n *Node) {
		a, err := n.Attr()
		if err != nil {
			t.Fatal(err)
		}
		if first == nil && a.Nlink == 1 && a.Size > 0 {
			first = n
		}
		if a.Size > 0 {
			want = append(want, n.Ino())
		}
	})
	w, err := v.walkFrom(first)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	want = want[slices.Index(want, first.Ino()):]
	got := []uint64{first.Ino()}
	for {
		f, err := w.next()
		if err != nil {
			break
		}
		got = append(got, f.ino)
	}
	if !slices.Equal(got, want) || len(want) < files/2 {
		t.Errorf("%d files, want %d in the order of listings", len(got), len(want))
	}
}
