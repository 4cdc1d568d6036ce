package volume

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

// Volumes of kind unfinished are those of a mount that was killed while everything was
// under way that takes more than one step: changes in redo slots, operations on names
// in intents, a reencrypt with its journal.

// goldenStop is an operation that stops at one of its calls on the backing
// directory, while the next one is begun.
type goldenStop struct {
	run   func(*stage) error
	at    func(c call) bool
	after bool // that call is made
}

// goldenStops are begun in this order, and are all under way at the end.
func goldenStops() []goldenStop {
	to := func(op string) func(call) bool { return func(c call) bool { return c.op == op } }
	// A sidecar, too, is removed some time after its file.
	removal := func(c call) bool { return c.op == "unlinkat" && len(c.name) != 32 }
	data := func(c call) bool { return c.op == "pwrite" && c.off > 0 }
	var replaced atomic.Int32
	third := func(c call) bool {
		if c.op == "renameat2" && strings.HasPrefix(c.name, dataTmpPrefix) {
			replaced.Add(1)
		}
		return replaced.Load() == 2 && data(c)
	}
	create := in("names/new", func(d *Node, name string) error { _, _, err := d.Create(name, 0o600, Owner{}); return err })
	create2 := in("names/newer", func(d *Node, name string) error { _, _, err := d.Create(name, 0o600, Owner{}); return err })
	mkdir := in("names/new directory", func(d *Node, name string) error { _, _, err := d.Mkdir(name, 0o700, Owner{}); return err })
	mkdir2 := in("names/newer directory", func(d *Node, name string) error { _, _, err := d.Mkdir(name, 0o700, Owner{}); return err })
	symlink := in("names/new link", func(d *Node, name string) error {
		_, _, err := d.Symlink(name, strings.Repeat("/new", 760), Owner{})
		return err
	})
	linking := func(old, to string) func(*stage) error {
		return func(s *stage) error { return byPath{s.t, s.v}.Link(old, to) }
	}
	return []goldenStop{
		{func(s *stage) error {
			_, err := s.v.Reencrypt(s.t.Context(), ReencryptOptions{Paths: []string{"old keys"}})
			return err
		}, third, false},
		{writing("content/overwritten", blk, 100), data, false},
		{writing("content/appended", 100, blk+50), data, true},
		{cutting("content/cut", 7), to("ftruncate"), false},
		{allocating("content/punched", 0, blk, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE), data, true},
		{renaming("names/stays", "elsewhere/went", 0), data, false},
		{renaming("names/goes", "elsewhere/goes", 0), to("renameat2"), true},
		{renaming("names/bound twice", "elsewhere/bound", 0), to("renameat2"), false},
		{renaming("names/"+longOne, "elsewhere/"+longTwo, 0), to("renameat2"), true},
		{renaming("names/directory", "elsewhere/empty", 0), to("renameat2"), true},
		{renaming("names/lower", "elsewhere/hidden", RenameWhiteout), to("mknodat"), false},
		{renaming("names/directory bound twice", "elsewhere/directory", 0), to("renameat2"), false},
		{renaming("names/one", "elsewhere/two", RenameExchange), to("renameat2"), true},
		{renaming("names/over", "elsewhere/link", 0), to("renameat2"), true},
		{create, func(c call) bool { return c.op == "pwrite" && c.bytes == 144 }, false},
		{create2, func(c call) bool { return c.op == "pwrite" && c.bytes == 144 }, true},
		{mkdir, to("renameat2"), false},
		{mkdir2, to("renameat2"), true},
		{symlink, to("symlinkat"), false},
		{in("names/"+longTwo, (*Node).Unlink), removal, true},
		{in("names/link", (*Node).Unlink), removal, true},
		{in("names/empty", (*Node).Rmdir), removal, false},
		{in("names/emptier", (*Node).Rmdir), removal, true},
		{linking("names/once", "elsewhere/once"), to("linkat"), false},
		{linking("names/twice", "elsewhere/twice"), to("linkat"), true},
	}
}

// What of all this the next mount finds armed.
const goldenChanges, goldenIntents = 6, 20

// unfinishedTree is what the first mount makes.
func unfinishedTree(s *stage) {
	for _, d := range []string{
		"content", "names", "elsewhere", "old keys", "names/directory", "elsewhere/empty", "names/lower", "elsewhere/hidden",
		"names/directory bound twice", "names/empty", "names/emptier",
	} {
		s.dir(d)
	}
	s.fill("content/overwritten", pattern(blk+200, 1))
	s.fill("content/appended", pattern(30, 2))
	s.fill("content/cut", pattern(blk+100, 3))
	s.fill("content/punched", pattern(blk+300, 4))
	for i, name := range []string{"a", "b", "c", "d"} {
		s.fill("old keys/"+name, pattern(100+1000*i, byte(5+i)))
	}
	for i, name := range []string{
		"names/stays", "names/goes", "names/bound twice", "names/" + longOne, "names/" + longTwo, "names/directory/within",
		"names/lower/within", "names/directory bound twice/within", "names/one", "elsewhere/two", "names/over", "names/once", "names/twice",
	} {
		s.fill(name, pattern(30+i, byte(10+i)))
	}
	s.symlink(strings.Repeat("/one", 760), "names/link")
	s.symlink(strings.Repeat("/two", 760), "elsewhere/link")
	(&goldenTree{s.t, s.v}).date(s.root(), time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC))
}

// begin begins goldenStops, each while the one before it stands still, and calls
// then once all of them do.
func (g *goldenPlace) begin(s *stage, store *tap, list []goldenStop, then func()) {
	if len(list) == 0 {
		store.turn(func(c call, do func(int) error) error { return do(c.bytes) })
		then()
		return
	}
	i := list[0]
	var reached atomic.Bool
	store.turn(func(c call, do func(int) error) error {
		if reached.Load() || !i.at(c) || !reached.CompareAndSwap(false, true) {
			return do(c.bytes)
		}
		if !i.after {
			g.begin(s, store, list[1:], then)
			return do(c.bytes)
		}
		err := do(c.bytes)
		g.begin(s, store, list[1:], then)
		return err
	})
	s.check(i.run(s))
	if !reached.Load() {
		g.t.Fatalf("the goldenStop before %d others did not come to its call", len(list)-1)
	}
}

func TestMakeUnfinishedGoldenVolumes(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			g := newGoldenPlace(t)
			g.init(mode)
			v := g.open(Options{StateDir: g.state()})
			unfinishedTree(&stage{t: t, v: v})
			ok(t, v.Close())

			store := &tap{Backing: System{}, through: func(c call, do func(int) error) error { return do(c.bytes) }}
			strict := mode == ModeVolume
			v = g.open(Options{StateDir: g.state(), Backing: store, Strict: strict})
			m := goldenManifest{FormatVersion: formatVersion, KeyMode: mode, Volume: v.ID().String(), Fingerprint: v.Fingerprint(), Passphrase: goldenPassphrase}
			m.Unfinished.Session, m.Unfinished.Logged = v.session.id.String(), strict
			var archive bytes.Buffer
			g.begin(&stage{t: t, v: v}, store, goldenStops(), func() { g.pack(&archive) })
			ok(t, v.Close())

			after := newGoldenPlace(t)
			after.inodes = unpackTar(t, bytes.NewReader(archive.Bytes()), after.place)
			v = after.finish(&m, must(bootID())(t))
			m.Entries = undated(describe(t, v))
			ok(t, v.Close())
			manifest := must(json.MarshalIndent(m, "", " "))(t)
			keepGolden(t, "unfinished-"+string(mode), 110<<10, archive.Bytes(), append(manifest, '\n'))
		})
	}
}

// undated leaves out times that are those of the mount that finishes.
func undated(entries []goldenEntry) []goldenEntry {
	for i, e := range entries {
		if e.Kind != "file" || strings.HasPrefix(e.Path, "content/") {
			entries[i].Mtime = ""
		}
	}
	return entries
}

// init makes keystore, identity and an empty volume.
func (g *goldenPlace) init(mode KeyMode) {
	t := g.t
	ok(t, os.WriteFile(g.identity(), []byte(goldenIdentity+"\n"), 0o600))
	keystore := must(local.Create(t.Context(), g.keystore()))(t)
	must(keystore.EnsureDefaultKey(t.Context()))(t)
	ok(t, keystore.Close())
	must(Init(t.Context(), g.backing(), InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}, {Provider: "age", KeyID: goldenRecipient}},
		Mode: mode, Providers: g.providers("local", "age"), StateDir: g.state(),
	}))(t)
}

// finish opens an unpacked volume as the next mount of its host, in that boot.
func (g *goldenPlace) finish(m *goldenManifest, boot string) *Volume {
	g.t.Helper()
	g.remember(m, boot)
	if changes, intents := g.renumber(m); changes != goldenChanges || intents != goldenIntents {
		g.t.Errorf("%d slots and %d intents are armed, want %d and %d", changes, intents, goldenChanges, goldenIntents)
	}
	return g.open(Options{StateDir: g.state()})
}

func TestAllThatAGoldenVolumeWasInTheMiddleOfIsFinished(t *testing.T) {
	eachGoldenOf(t, "unfinished", func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		v := g.finish(m, must(bootID())(t))
		mustAgree(t, undated(describe(t, v)), m.Entries)
		b := byPath{t, v}
		// Changes are made.
		overwritten := pattern(blk+200, 1)
		copy(overwritten[100:], pattern(blk, 99))
		appended := append(append(pattern(30, 2), make([]byte, blk+20)...), pattern(100, 99)...)
		punched := pattern(blk+300, 4)
		clear(punched[:blk])
		for path, want := range map[string][]byte{
			"content/overwritten": overwritten, "content/appended": appended, "content/cut": pattern(blk+100, 3)[:7], "content/punched": punched,
			"old keys/a": pattern(100, 5), "old keys/b": pattern(1100, 6), "old keys/c": pattern(2100, 7), "old keys/d": pattern(3100, 8),
			"names/stays": pattern(30, 10), "elsewhere/goes": pattern(31, 11), "names/bound twice": pattern(32, 12), "elsewhere/" + longTwo: pattern(33, 13),
			"elsewhere/empty/within": pattern(35, 15), "elsewhere/hidden/within": pattern(36, 16), "names/directory bound twice/within": pattern(37, 17),
			"elsewhere/two": pattern(38, 18), "names/one": pattern(39, 19), "elsewhere/link": pattern(40, 20),
			"names/once": pattern(41, 21), "names/twice": pattern(42, 22), "elsewhere/twice": pattern(42, 22),
		} {
			n := must(b.at(path))(t)
			if !bytes.Equal(readAll(t, n), want) {
				t.Errorf("%s holds something else", path)
			}
			checkSeal(t, n)
			f := must(n.openFile(false))(t)
			r := f.rec
			f.release()
			if linked := strings.HasSuffix(path, "/twice"); r.Linked() != linked || r.BindingB != [16]byte{} || (r.BindingA == [16]byte{}) != linked {
				t.Errorf("%s: record %+v", path, r)
			}
		}
		// Operations on names are done or not, and nothing of them is left.
		if a, err := must(b.at("names/lower"))(t).Attr(); err != nil || a.Mode&unix.S_IFMT != unix.S_IFCHR {
			t.Errorf("no whiteout: mode %o, %v", a.Mode, err)
		}
		for _, path := range []string{"names/empty", "names/newer directory"} {
			if n, err := b.at(path); err != nil || len(list(t, n)) != 0 {
				t.Errorf("%s: %v", path, err)
			}
		}
		for _, path := range []string{
			"elsewhere/went", "names/goes", "elsewhere/bound", "names/" + longOne, "names/" + longTwo, "names/directory", "elsewhere/directory",
			"names/over", "names/new", "names/newer", "names/new directory", "names/new link", "names/link", "names/emptier", "elsewhere/once",
		} {
			if _, err := b.at(path); err != unix.ENOENT {
				t.Errorf("%s: %v", path, err)
			}
		}
		if links := must(os.ReadDir(filepath.Join(g.backing(), ".kmsfs/links")))(t); len(links) != 0 {
			t.Errorf("%d targets of links that are gone", len(links))
		}
		// A reencrypt goes on where the last one was.
		var half []string
		for _, left := range g.leftBeside() {
			if _, id, ok := strings.Cut(filepath.Base(left), dataTmpPrefix); ok {
				half = append(half, filepath.Join(g.backing(), metaDir, "keys", id[:2], id))
			}
		}
		r, err := v.Reencrypt(t.Context(), ReencryptOptions{Paths: []string{"old keys"}})
		if err != nil || r.Already != 2 || r.Files != 2 || r.Temporaries != 1 || !r.Complete || r.Resumed == nil {
			t.Errorf("%v, %+v", err, r)
		}
		if len(half) != 1 {
			t.Fatalf("%d files are half made", len(half))
		}
		if _, err := os.Stat(half[0]); !os.IsNotExist(err) {
			t.Errorf("the sidecar of what was half made: %v", err)
		}
		ok(t, v.Close())
		if left := g.leftBeside(); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		g.mustFind(string(FindingOrphan))
	})
}

func TestOfAllThatAGoldenVolumeWasInTheMiddleOfLoggedChangesOutliveAPowerCut(t *testing.T) {
	eachGoldenOf(t, "unfinished", func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		v := g.finish(m, "00000000-0000-0000-0000-000000000000")
		made := make(map[string]goldenEntry)
		for _, e := range m.Entries {
			made[e.Path] = e
		}
		paths := []string{"content/overwritten", "content/appended", "content/cut", "content/punched"}
		if !m.Unfinished.Logged {
			paths = paths[:1] // the others were begun: they are half made, and damaged
		}
		for _, path := range paths {
			n, err := (byPath{t, v}).at(path)
			ok(t, err)
			if is := describeNode(t, n, path); (is.SHA256 == made[path].SHA256) != m.Unfinished.Logged {
				t.Errorf("%s: made, though logged is %v, or the other way round", path, m.Unfinished.Logged)
			}
		}
		ok(t, v.Close())
	})
}

// leftBeside is what is on its way in the tree.
func (g *goldenPlace) leftBeside() (left []string) {
	ok(g.t, filepath.WalkDir(g.backing(), func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(e.Name(), ".kmsfs.tmp.") {
			left = append(left, path)
		}
		return err
	}))
	names, err := filepath.Glob(filepath.Join(g.state(), "*.reencrypt"))
	ok(g.t, err)
	return append(left, names...)
}
