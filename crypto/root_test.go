package crypto

import (
	"bytes"
	"testing"
)

func TestRootTermDependsOnKeyIndexAndTag(t *testing.T) {
	seen := map[[16]byte]bool{}
	for _, k := range []byte{1, 2} {
		r := NewRooter(testKey(k))
		for _, index := range []uint64{0, 1, 1 << 8, 1 << 56, 1<<64 - 1} {
			for i := range 17 {
				var tag [16]byte
				if i < 16 {
					tag[i] = 1
				}
				term := r.Term(index, tag)
				if seen[term] || term == [16]byte{} {
					t.Errorf("key %d, block %d, tag %x: the term is not its own", k, index, tag)
				}
				seen[term] = true
				if r.Term(index, tag) != term {
					t.Errorf("key %d, block %d, tag %x: the term changes", k, index, tag)
				}
			}
		}
	}
}

func TestRootShowsAnyBlockPutBackMovedRemovedOrAdded(t *testing.T) {
	_, s := testBlocks(1)
	r := NewRooter(testKey(3))
	plain := make([]byte, 3*BlockSize+100)
	older, newer := make([]byte, CipherLen(len(plain))), make([]byte, CipherLen(len(plain)))
	for _, records := range [][]byte{older, newer} {
		if err := s.Seal(records, plain, 10); err != nil {
			t.Fatal(err)
		}
	}
	var root [16]byte
	if n := r.XORRecords(&root, newer, 10); n != 4 {
		t.Fatalf("%d blocks stored", n)
	}
	change := func(what string, first uint64, f func(records []byte) []byte) {
		t.Helper()
		var got [16]byte
		r.XORRecords(&got, f(bytes.Clone(newer)), first)
		if got == root {
			t.Errorf("%s: same root", what)
		}
	}
	block := func(b []byte, i int) []byte { return b[i*CipherBlockSize : min((i+1)*CipherBlockSize, len(b))] }
	change("put back", 10, func(b []byte) []byte { copy(block(b, 1), block(older, 1)); return b })
	change("put back, last", 10, func(b []byte) []byte { copy(block(b, 3), block(older, 3)); return b })
	change("exchanged", 10, func(b []byte) []byte { copy(b, block(newer, 1)); copy(block(b, 1), block(newer, 0)); return b })
	change("removed", 10, func(b []byte) []byte { return b[:3*CipherBlockSize] })
	change("zeroed", 10, func(b []byte) []byte { clear(block(b, 2)); return b })
	change("moved", 11, func(b []byte) []byte { return b })

	// An update takes the old term away and adds the new one.
	updated := bytes.Clone(newer)
	copy(block(updated, 1), block(older, 1))
	XORRoot(&root, r.Term(11, RecordTag(block(newer, 1))))
	XORRoot(&root, r.Term(11, RecordTag(block(older, 1))))
	var want [16]byte
	r.XORRecords(&want, updated, 10)
	if root != want {
		t.Error("an updated root is not that of the updated file")
	}
}

func TestXORRecordsSkipsHolesAndTornTails(t *testing.T) {
	_, s := testBlocks(1)
	r := NewRooter(testKey(3))
	records := make([]byte, 3*CipherBlockSize)
	if err := s.Seal(records[CipherBlockSize:][:CipherBlockSize], make([]byte, BlockSize), 8); err != nil {
		t.Fatal(err)
	}
	want := r.Term(8, RecordTag(records[:2*CipherBlockSize]))
	for _, tail := range []int{0, 1, 40} {
		got := [16]byte{}
		if n := r.XORRecords(&got, append(bytes.Clone(records), bytes.Repeat([]byte{1}, tail)...), 7); n != 1 || got != want {
			t.Errorf("tail of %d: %d blocks, root %x, want %x", tail, n, got, want)
		}
	}
	got := [16]byte{}
	if n := r.XORRecords(&got, bytes.Repeat([]byte{1}, 41), 7); n != 1 || got == [16]byte{} {
		t.Errorf("a block of one byte: %d blocks, root %x", n, got)
	}
	if n := r.XORRecords(&got, nil, 0); n != 0 {
		t.Errorf("nothing: %d blocks", n)
	}
}

func TestRootAllocatesNothing(t *testing.T) {
	r := NewRooter(testKey(3))
	var root [16]byte
	records := bytes.Repeat([]byte{1}, 8*CipherBlockSize)
	wantNoAllocs(t, "Term and XORRoot", func() { XORRoot(&root, r.Term(1, [16]byte{2})) })
	wantNoAllocs(t, "XORRecords", func() { r.XORRecords(&root, records, 1) })
}

func BenchmarkTerm(b *testing.B) {
	r := NewRooter(testKey(3))
	var root [16]byte
	for b.Loop() {
		XORRoot(&root, r.Term(1, root))
	}
}
