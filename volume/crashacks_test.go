package volume

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// What the load has been promised: by fsync, and by what syncs everything.

func (l *crashLoad) sync(f *tracked, dataOnly bool) {
	l.must("fsync", f.node.Sync(dataOnly))
	l.acknowledge(f, l.rec.now(), !dataOnly)
}

func (l *crashLoad) acknowledge(f *tracked, at int, attrs bool) {
	if f.isDir() {
		f.dirAcks = append(f.dirAcks, dirAck{at, maps.Clone(f.entries), l.above(f)})
	} else {
		f.acks = append(f.acks, fileAck{at, len(f.versions) - 1, attrs, l.above(f)})
	}
}

// above is the directories that an object is in, but for those that were moved:
// their new names are durable when they are synced themselves.
func (l *crashLoad) above(f *tracked) (all []nesting) {
	for _, p := range f.where {
		for d := p.dir; d != l.root; d = d.where[0].dir {
			if !d.moved {
				all = append(all, nesting{d.where[0], d})
			}
		}
	}
	return all
}

// synced is after everything was made durable.
func (l *crashLoad) synced() {
	at := l.rec.now()
	for _, d := range l.dirs() {
		l.acknowledge(d, at, true)
		for _, f := range d.entries {
			if f.isFile() {
				l.acknowledge(f, at, true)
			}
		}
	}
}

// closeAndOpen ends the mount cleanly.
func (l *crashLoad) closeAndOpen() {
	quietPool(l.v)
	l.must("close", l.v.Close())
	l.synced()
	l.open()
}

func (l *crashLoad) lockAndUnlock() {
	l.must("lock", l.v.Lock())
	l.synced()
	l.must("unlock", l.v.Unlock(context.Background()))
	quietPool(l.v)
}

// reencrypt gives the file of an entry a new key: another object takes its place,
// which is durable before.
func (l *crashLoad) reencrypt(p placed) *tracked {
	old := p.dir.entries[p.name]
	if len(old.where) > 1 {
		return old // hard links keep theirs
	}
	path := []string{p.name}
	for d := p.dir; d != l.root; d = d.where[0].dir {
		path = append(path, d.where[0].name)
	}
	slices.Reverse(path)
	at, v := l.rec.now(), old.now()
	v.at, v.from, v.to = at, 0, 0
	_, err := l.v.Reencrypt(context.Background(), ReencryptOptions{Paths: []string{strings.Join(path, "/")}})
	l.must("reencrypt", err)
	quietPool(l.v)
	f := l.add(at, p.dir, p.name, lookup(l.t, p.dir.node, p.name))
	f.versions = []fileVersion{v}
	f.acks = []fileAck{{at: l.rec.replaced(f.obj) + 1, attrs: true}}
	old.node.Forget()
	return f
}

// replaced is the event by which an object took another's place.
func (r *recorder) replaced(o *object) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range o.events {
		if r.log[i].kind == evRename {
			return i
		}
	}
	r.t.Errorf("recorder: %s was not renamed", o.path)
	return 0
}
