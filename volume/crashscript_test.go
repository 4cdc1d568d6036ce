package volume

import (
	"strings"

	"kmsfs/crypto"
	"kmsfs/kmsprovider"
)

// scripted does what nobody should have to wait for by chance.
func (l *crashLoad) scripted() {
	// Nothing but a file is synced, though the directories that it is in, moves to and
	// is linked into are new.
	e := l.create(l.mkdir(l.root))
	l.write(e, 0, 5000)
	l.sync(e, true)
	l.rename(e.where[0], placed{l.mkdir(l.root), "moved"})
	l.sync(e, true)
	l.link(e, l.mkdir(l.root))
	l.sync(e, true)
	// Nothing is synced of a file, nor of what is in a directory, before they leave names that are long.
	long := strings.Repeat("z", 200)
	k, m := l.create(l.root), l.mkdir(l.root)
	l.rename(k.where[0], placed{l.root, "k" + long})
	l.rename(k.where[0], placed{l.root, "k"})
	l.write(k, 0, 5000)
	l.sync(k, true)
	l.rename(m.where[0], placed{l.root, "m" + long})
	k = l.create(m)
	l.rename(m.where[0], placed{l.root, "m"})
	l.write(k, 0, 5000)
	l.sync(k, true)
	// A directory and a file in it, both found by who syncs the usual way.
	d := l.mkdir(l.root)
	f := l.create(d)
	l.write(f, 0, 5000)
	l.sync(f, false)
	l.sync(l.root, false)
	l.write(f, 5000, 3000) // the short tail
	l.write(f, 100, 50)
	l.sync(f, true)
	l.write(f, 0, 4096)
	// A directory that only its parent's fsync makes durable; a long target; a name
	// that is long.
	l.mkdir(d)
	l.symlink(d, strings.Repeat("t", 3500))
	l.sync(d, false)
	// What was synced moves where nothing was.
	g := l.mkdir(l.root)
	l.rename(f.where[0], placed{g, "moved" + strings.Repeat("y", 200)})
	l.sync(f, true)
	l.sync(g, false)
	// An old file is replaced, and its key goes.
	h := l.create(l.root)
	l.write(h, 0, 200)
	l.sync(h, false)
	l.rename(h.where[0], f.where[0])
	f.node.Forget()
	l.v.reaper.flush()
	for i := range 5 {
		l.write(h, 10*i, 10)
	}
	l.sync(g, false)
	// It gets a second name where nothing was, is cut, and grows again.
	l.link(h, l.mkdir(l.root))
	l.truncate(h, 150)
	l.write(h, 150, 9000)
	l.sync(h, true)
	l.truncate(h, 6000)
	l.write(h, 6000, 5000)
	l.sync(h, false)
	l.punch(h, 3000, 5000)
	l.punch(h, 0, 4096)
	// Nobody syncs what is written before a lock and an end.
	j := l.create(l.mkdir(l.root))
	l.write(j, 0, 6000)
	l.lockAndUnlock()
	l.write(j, 0, 100)
	l.write(l.create(l.root), 0, 100)
	l.closeAndOpen()
	l.write(j, 100, 100)
	// A file is written anew under another key, and the old one goes.
	j = l.reencrypt(j.where[0])
	for i := range 5 {
		l.write(j, 10*i, 10)
	}
	l.v.reaper.flush()
	l.write(j, 200, 5000)
	// A mount is killed that has synced nothing.
	i := l.create(l.mkdir(l.root))
	l.write(i, 0, 9000)
	l.kill()
	l.open()
	l.write(i, 20, 20)
	l.sync(i, false)
	l.sync(l.root, false)
	l.write(i, 4000, 200)
	// Another key takes the place of the first, in a rewrap that is killed before
	// the names of the new sidecars are durable, and one that finds these.
	l.kill()
	l.rec.set(func() { l.rec.noShelves = true })
	if _, err := l.b.rewrap(uriA, uriB, func(o *RewrapOptions) { o.Backing = l.rec }); err == nil && l.v.mode == ModeFile {
		l.t.Fatal("a rewrap was not interrupted")
	}
	l.rec.set(func() { l.rec.noShelves = false })
	l.b.mustRewrap(zeroKey, zeroKey, func(o *RewrapOptions) { o.Backing = l.rec })
	l.rewrapped = l.rec.now()
	l.open()
	l.write(i, 20, 20)
	l.sync(i, false)
}

var zeroKey kmsprovider.KeyURI

// step does something.
func (l *crashLoad) step() {
	f := l.file()
	switch k := l.rng.IntN(100); {
	case f == nil || k < 8:
		l.create(l.someDir())
	case k < 24:
		l.write(f, l.rng.IntN(len(f.now().content)+1), 1+l.rng.IntN(9000))
	case k < 36: // short appends
		l.write(f, len(f.now().content), 1+l.rng.IntN(3000))
	case k < 38:
		l.write(f, len(f.now().content)+l.rng.IntN(9000), 1+l.rng.IntN(3000))
	case k < 42:
		l.truncate(f, l.rng.IntN(30000))
	case k < 45:
		l.punch(f, l.rng.IntN(len(f.now().content)+1), 1+l.rng.IntN(12000))
	case k < 47:
		l.setAttr(f)
	case k < 62:
		l.sync(f, l.rng.IntN(2) == 0)
	case k < 70:
		l.sync(l.someDir(), false)
	case k < 76:
		l.move()
	case k < 79:
		l.link(f, l.someDir())
	case k < 85:
		if p := pickOne(l.rng, l.entriesOf(func(e *tracked) bool { return !e.isDir() || len(e.entries) == 0 })); p.dir != nil {
			l.remove(p)
		}
	case k < 90:
		l.mkdir(l.someDir())
	case k < 93:
		l.symlink(l.someDir(), strings.Repeat("t", 1+l.rng.IntN(maxTarget)))
	case k < 94:
		l.v.reaper.flush()
	case k < 95:
		l.kill()
		l.open()
	case k < 96:
		l.closeAndOpen()
	case k < 97:
		l.lockAndUnlock()
	case k < 98:
		l.reencrypt(pickOne(l.rng, l.entriesOf((*tracked).isFile)))
	default:
		l.v.descriptors.closeAll() // all is read anew
	}
}

// file draws a file that has a name and is not large.
func (l *crashLoad) file() *tracked {
	p := pickOne(l.rng, l.entriesOf((*tracked).isFile))
	if p.dir == nil {
		return nil
	}
	f := p.dir.entries[p.name]
	if len(f.now().content) > 40000 {
		l.truncate(f, l.rng.IntN(10000))
	}
	return f
}

// move renames something, a file sometimes over another.
func (l *crashLoad) move() {
	from := pickOne(l.rng, l.entriesOf(func(*tracked) bool { return true }))
	if from.dir == nil {
		return
	}
	f := from.dir.entries[from.name]
	to := placed{l.someDir(), l.newName()}
	if over := pickOne(l.rng, l.entriesOf((*tracked).isFile)); over.dir != nil && f.isFile() && l.rng.IntN(2) == 0 {
		to = over
	}
	if f.isDir() && l.below(to.dir, f) {
		return
	}
	l.rename(from, to)
}

// blockOfVersion is a block of n bytes of a version, with zeros behind its end.
func blockOfVersion(v *fileVersion, block, n int) []byte {
	return blockOf(v.content, block*crypto.BlockSize, n)
}
