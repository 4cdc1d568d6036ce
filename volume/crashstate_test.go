package volume

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
)

// What a power cut leaves of a recorded history, under two models.
//
// ext4 (ordered): names, attributes and sizes are those of one moment, at or after
// the last barrier of any kind, but that a file whose data was not flushed may be
// shorter. New data is there before a size that covers it.
//
// weak: of each directory a prefix of its changes happened, at least up to its last
// fsync; a rename between two directories happened in both or in neither, and in a
// directory that can be reached. Sizes and attributes of each file are those of any
// moment since its last fsync, independent of its data.
//
// In both, each sector of data that was not made durable is as it was at any moment
// since it was last: whole pages, or sectors of 512 bytes of each other's past.

const (
	sectorSize = 512
	pageSize   = 4096
)

type crashModel int

const (
	crashPrefix crashModel = iota // everything until then reached the disk
	crashBare                     // nothing that no barrier asked for did
	crashExt4
	crashWeak
	crashModels
)

func (m crashModel) String() string { return []string{"prefix", "bare", "ext4", "weak"}[m] }

// history is a log with what is needed to look at it from any of its moments.
type history struct {
	*recorder
	sectors map[*object]map[int64][]sectorVersion
	sizes   map[*object][]sizeVersion
	// barriers are the events before which something was to become durable.
	barriers []int
}

// sectorVersion is a sector from an event on; nil data are zeros.
type sectorVersion struct {
	event int
	data  []byte
}

type sizeVersion struct {
	event int
	size  int64
}

func newHistory(r *recorder) *history {
	h := &history{recorder: r, sectors: map[*object]map[int64][]sectorVersion{}, sizes: map[*object][]sizeVersion{}}
	for i, e := range r.log {
		if e.kind == evSync || e.kind == evAll {
			h.barriers = append(h.barriers, i)
		}
	}
	for _, o := range r.objects {
		if o.mode&unix.S_IFMT == unix.S_IFREG {
			h.addVersions(o)
		}
	}
	return h
}

// addVersions replays what happened to a file's content.
func (h *history) addVersions(o *object) {
	sectors := map[int64][]sectorVersion{}
	h.sectors[o] = sectors
	size := int64(0)
	put := func(event int, off int64, b []byte) {
		for len(b) > 0 {
			i, in := off/sectorSize, off%sectorSize
			n := min(int64(len(b)), sectorSize-in)
			next := make([]byte, sectorSize)
			if old := sectors[i]; len(old) > 0 && old[len(old)-1].data != nil {
				copy(next, old[len(old)-1].data)
			}
			copy(next[in:], b[:n])
			sectors[i] = append(sectors[i], sectorVersion{event, next})
			b, off = b[n:], off+n
		}
	}
	zero := func(event int, from, to int64) {
		for _, i := range slices.Collect(maps.Keys(sectors)) {
			lo, hi := max(from, i*sectorSize), min(to, (i+1)*sectorSize)
			if lo >= hi {
				continue
			}
			if hi-lo == sectorSize {
				sectors[i] = append(sectors[i], sectorVersion{event, nil})
			} else {
				put(event, lo, make([]byte, hi-lo))
			}
		}
	}
	resize := func(event int, n int64) {
		size = n
		h.sizes[o] = append(h.sizes[o], sizeVersion{event, n})
	}
	put(-1, 0, o.data)
	resize(-1, int64(len(o.data)))
	for _, i := range o.events {
		switch e := &h.log[i]; {
		case e.obj != o:
		case e.kind == evSize:
			if e.n < size {
				zero(i, e.n, size)
			}
			resize(i, e.n)
		case e.kind == evWrite && e.data == nil:
			zero(i, e.off, e.off+e.n)
		case e.kind == evWrite && len(e.data) > 0:
			put(i, e.off, e.data)
			if end := e.off + int64(len(e.data)); end > size {
				resize(i, end)
			}
		}
	}
}

// moment is a history cut off before event k, with what was durable then: events
// before these indexes.
type moment struct {
	*history
	k       int
	data    map[*object]int // content and size
	attrs   map[*object]int
	entries map[*object]int
	any     int // the last barrier of any kind
}

func (h *history) moment(k int) *moment {
	m := &moment{h, k, map[*object]int{}, map[*object]int{}, map[*object]int{}, 0}
	for i := k - 1; i >= 0; i-- {
		e := &h.log[i]
		if e.kind != evSync && e.kind != evAll {
			continue
		}
		m.any = max(m.any, i)
		if e.kind == evAll {
			for _, o := range h.objects {
				for _, set := range []map[*object]int{m.data, m.attrs, m.entries} {
					set[o] = max(set[o], i)
				}
			}
			break // nothing older adds to it
		}
		m.data[e.obj] = max(m.data[e.obj], i)
		if !e.dataOnly {
			m.attrs[e.obj] = max(m.attrs[e.obj], i)
			m.entries[e.obj] = max(m.entries[e.obj], i)
		}
	}
	return m
}

// crashState is what a power cut left: for each object, up to which event its
// entries and attributes go, and a file's content.
type crashState struct {
	*moment
	model   crashModel
	seed    uint64
	dirCut  map[*object]int
	tree    map[*object]map[string]*object
	attrCut map[*object]int
}

// crash draws a state of a moment.
func (m *moment) crash(model crashModel, seed uint64) *crashState {
	s := &crashState{m, model, seed, map[*object]int{}, map[*object]map[string]*object{}, map[*object]int{}}
	rng := rand.New(rand.NewPCG(seed, 0))
	whole := m.any + rng.IntN(m.k-m.any+1)
	for _, o := range m.objects {
		switch model {
		case crashPrefix:
			s.dirCut[o], s.attrCut[o] = m.k, m.k
		case crashBare:
			s.dirCut[o], s.attrCut[o] = m.entries[o], m.attrs[o]
		case crashExt4:
			s.dirCut[o], s.attrCut[o] = whole, whole
		case crashWeak:
			s.dirCut[o], s.attrCut[o] = m.between(rng, m.entries[o]), m.between(rng, m.attrs[o])
		}
	}
	s.closeCuts()
	s.buildTree()
	return s
}

// between draws a moment from durable on; the ends come up often.
func (m *moment) between(rng *rand.Rand, durable int) int {
	switch rng.IntN(4) {
	case 0:
		return durable
	case 1:
		return m.k
	}
	return durable + rng.IntN(m.k-durable+1)
}

// closeCuts moves the cuts of directories until what happened in two of them
// happened in both, and what moved can be reached.
func (s *crashState) closeCuts() {
	for again := true; again; {
		again = false
		raise := func(o *object, to int) {
			if s.dirCut[o] < to {
				s.dirCut[o], again = to, true
			}
		}
		placed := map[*object][2]any{}
		for i := range s.log[:s.k] {
			e := &s.log[i]
			switch {
			case e.kind == evRename && e.dir != e.dir2:
				if i < s.dirCut[e.dir] || i < s.dirCut[e.dir2] {
					raise(e.dir, i+1)
					raise(e.dir2, i+1)
				}
			case e.kind != evRename && e.kind != evEntry:
				continue
			}
			to := e.dir
			if e.kind == evRename {
				to = e.dir2
			}
			moved := e.kind == evRename && e.dir != e.dir2 || e.kind == evEntry && e.obj.path != filepath.Join(e.dir.path, e.name)
			if moved && i < s.dirCut[to] {
				for d := to; ; {
					p, ok := placed[d]
					if !ok {
						break
					}
					d = p[0].(*object)
					raise(d, p[1].(int)+1)
				}
			}
			if e.obj.mode&unix.S_IFMT == unix.S_IFDIR {
				placed[e.obj] = [2]any{to, i}
			}
		}
	}
}

func (s *crashState) buildTree() {
	for _, o := range s.objects {
		if o.mode&unix.S_IFMT == unix.S_IFDIR {
			s.tree[o] = maps.Clone(o.entries)
		}
	}
	for i := range s.log[:s.k] {
		e := &s.log[i]
		if e.dir == nil || i >= s.dirCut[e.dir] {
			continue
		}
		switch e.kind {
		case evEntry:
			s.tree[e.dir][e.name] = e.obj
		case evGone:
			delete(s.tree[e.dir], e.name)
		case evRename:
			from, to := s.tree[e.dir], s.tree[e.dir2]
			if e.flags&unix.RENAME_EXCHANGE != 0 {
				from[e.name], to[e.name2] = to[e.name2], from[e.name]
				continue
			}
			to[e.name2] = from[e.name]
			delete(from, e.name)
		}
	}
}

// size draws the size of a file, as an event left it: the events before the one
// returned.
func (s *crashState) size(o *object, rng *rand.Rand) (size int64, event int) {
	durable, last := s.data[o], s.k
	switch s.model {
	case crashBare:
		last = durable
	case crashExt4:
		last = max(durable, s.dirCut[o])
	case crashPrefix:
		durable = last
	}
	versions := s.sizes[o]
	lo := sort.Search(len(versions), func(i int) bool { return versions[i].event >= durable }) - 1
	hi := sort.Search(len(versions), func(i int) bool { return versions[i].event >= last }) - 1
	v := versions[lo]
	if hi > lo {
		switch rng.IntN(3) {
		case 0:
		case 1:
			v = versions[hi]
		default:
			v = versions[lo+rng.IntN(hi-lo+1)]
		}
	}
	return v.size, max(v.event+1, durable)
}

// content writes what is left of a file's content. It is the same however the
// state's files are made in turn.
func (s *crashState) content(o *object, f *os.File) error {
	rng := rand.New(rand.NewPCG(s.seed, uint64(1+o.id)))
	size, sizeAt := s.size(o, rng)
	if err := f.Truncate(size); err != nil {
		return err
	}
	durableSize := int64(0)
	for _, v := range s.sizes[o] {
		if v.event < s.data[o] || v.event < 0 {
			durableSize = v.size
		}
	}
	mode := rng.IntN(4) // all old, all new, pages, sectors
	tear := rng.IntN(8) // one page in so many is torn, where pages are whole
	drawn := map[int64]float64{}
	for _, i := range slices.Sorted(maps.Keys(s.sectors[o])) {
		versions := s.sectors[o][i]
		if i*sectorSize >= size {
			continue
		}
		durable, last := s.data[o], s.k
		switch {
		case s.model == crashPrefix:
			durable = last
		case s.model == crashBare:
			last = durable
		case s.model == crashExt4 && i*sectorSize >= durableSize:
			durable = sizeAt // ordered
		}
		lo := sort.Search(len(versions), func(i int) bool { return versions[i].event >= durable }) - 1
		hi := sort.Search(len(versions), func(i int) bool { return versions[i].event >= last }) - 1
		if hi < 0 {
			continue
		}
		pick := hi
		if hi > lo {
			page := i * sectorSize / pageSize
			at, ok := drawn[page]
			if !ok {
				at = rng.Float64()
				if tear > 0 && rng.IntN(tear) == 0 && mode == 2 {
					at = -1
				}
				drawn[page] = at
			}
			if mode == 3 || at < 0 {
				at = rng.Float64()
			}
			switch mode {
			case 0:
				pick = lo
			case 1:
			default:
				pick = lo + int(at*float64(hi-lo+1))
			}
		}
		if pick < 0 || versions[pick].data == nil {
			continue
		}
		data := versions[pick].data
		if _, err := f.WriteAt(data[:min(sectorSize, size-i*sectorSize)], i*sectorSize); err != nil {
			return err
		}
	}
	return nil
}
