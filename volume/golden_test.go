package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// eachGolden runs a test on a copy of each golden volume. They are of every version
// that has written the frozen format, and are only ever added to: volumes of that
// time must open for good.
func eachGolden(t *testing.T, test func(t *testing.T, g *goldenPlace, m *goldenManifest)) {
	eachGoldenOf(t, "", test)
}

// eachGoldenOf does so with those of one kind: VERSION-MODE of kind "", else
// VERSION-KIND-MODE.
func eachGoldenOf(t *testing.T, kind string, test func(t *testing.T, g *goldenPlace, m *goldenManifest)) {
	seen := 0
	for _, archive := range must(filepath.Glob(filepath.Join(goldenDir, "*.tar.gz")))(t) {
		base := strings.TrimSuffix(archive, ".tar.gz")
		_, of, _ := strings.Cut(filepath.Base(base), "-")
		if of != strings.TrimPrefix(kind+"-file", "-") && of != strings.TrimPrefix(kind+"-volume", "-") {
			continue
		}
		seen++
		t.Run(filepath.Base(base), func(t *testing.T) {
			m := new(goldenManifest)
			ok(t, json.Unmarshal(readPath(t, base+".json"), m))
			g := newGoldenPlace(t)
			g.inodes = unpackTar(t, bytes.NewReader(readPath(t, archive)), g.place)
			test(t, g, m)
		})
	}
	if seen < 2 {
		t.Fatalf("%d golden volumes of kind %q, want one at least for each key mode", seen, kind)
	}
}

func TestGoldenVolumesHoldWhatTheyHeld(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		if len(m.Entries) < 70 {
			t.Fatalf("the manifest has %d entries, which cannot be all", len(m.Entries))
		}
		want := withoutRoot(m.Entries)
		for _, provider := range []string{"local", "age"} {
			v := g.open(Options{ReadOnly: true, Fingerprint: m.Fingerprint, Providers: g.providers(provider)})
			if c := v.config.Load(); v.ID().String() != m.Volume || c.KeyMode != m.KeyMode || c.FormatVersion != m.FormatVersion {
				t.Errorf("by %s it is volume %s of version %d and key mode %s", provider, v.ID(), c.FormatVersion, c.KeyMode)
			}
			mustAgree(t, withoutRoot(describe(t, v)), want)
			ok(t, v.Close())
		}
		g.mustBeClean(string(FindingLeftover))
	})
}

func TestGoldenVolumesCanBeChanged(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		v := g.open(Options{})
		root := v.Root()
		contents, names := lookup(t, root, "contents"), lookup(t, root, "names")
		writeAll(t, lookup(t, contents, "several blocks"), []byte("new"), 5*goldenBlock+98)
		writeAll(t, lookup(t, contents, "sparse"), []byte("new"), 20*goldenBlock)
		writeAll(t, lookup(t, contents, "without a root"), []byte("new"), 0)
		ok(t, contents.Rename("4097", names, "moved here", 0))
		ok(t, names.Rename(strings.Repeat("n", 255), names, strings.Repeat("m", 255), 0))
		ok(t, root.Rename("links", lookup(t, names, "nested"), "links", 0))
		ok(t, contents.Unlink("4096"))
		ok(t, lookup(t, lookup(t, names, "nested"), "deeper").Rmdir("empty"))
		ok(t, lookup(t, lookup(t, root, "attributes"), "file").Removexattr("user.empty"))
		createFile(t, root, "new", pattern(5000, 1))
		changed := withoutRoot(describe(t, v))
		ok(t, v.Close())

		v = g.open(Options{ReadOnly: true})
		mustAgree(t, withoutRoot(describe(t, v)), changed)
		ok(t, v.Close())
		g.mustBeClean()
		is := make(map[string]goldenEntry)
		for _, e := range changed {
			is[e.Path] = e
		}
		// What nobody touched is what it was, but for directories' times.
		for _, e := range withoutRoot(m.Entries) {
			switch {
			case e.Kind == "directory", strings.HasPrefix(e.Path, "links/"), e.Path == "attributes/file", e.Path == "names/"+strings.Repeat("n", 255):
			case e.Path == "contents/4097":
				e.Path = "names/moved here"
				mustAgree(t, []goldenEntry{is[e.Path]}, []goldenEntry{e})
			case e.Path == "contents/4096":
				if is[e.Path].Path != "" {
					t.Errorf("%s is still there", e.Path)
				}
			case e.Path == "contents/several blocks", e.Path == "contents/sparse", e.Path == "contents/without a root":
				if is[e.Path].SHA256 == e.SHA256 {
					t.Errorf("%s is what it was", e.Path)
				}
			default:
				mustAgree(t, []goldenEntry{is[e.Path]}, []goldenEntry{e})
			}
		}
	})
}

// TestWhatAGoldenVolumeWasInTheMiddleOfIsFinished has the host remember a mount that
// was killed. The slot and intent of that mount name inodes, which are others after
// unpacking: their numbers, and with them the HMACs, are the only bytes of the format
// that a test of golden volumes puts in.
func TestWhatAGoldenVolumeWasInTheMiddleOfIsFinished(t *testing.T) {
	eachGolden(t, func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		g.remember(m, must(bootID())(t))
		if changes, intents := g.renumber(m); changes != 1 || intents != 1 {
			t.Fatalf("%d slots and %d intents are armed, want one of each", changes, intents)
		}
		v := g.open(Options{StateDir: g.state()})
		sum := sha256.Sum256(readAll(t, lookup(t, v.Root(), m.Unfinished.Path)))
		if hex.EncodeToString(sum[:]) != m.Unfinished.SHA256 {
			t.Error("the change that was under way is not made")
		}
		dir, name, _ := strings.Cut(m.Unfinished.From, "/")
		n := lookup(t, lookup(t, v.Root(), dir), name)
		f, err := n.openFile(false)
		ok(t, err)
		rec := f.rec
		f.release()
		if rec.BindingB != ([16]byte{}) && rec.BindingA != ([16]byte{}) {
			t.Error("the rename that was under way is not undone: the file has two bindings")
		}
		checkSeal(t, n)
		ok(t, v.Close())
		g.mustBeClean()
	})
}

// TestWhatAGoldenVolumeHasLoggedOutlivesAPowerCut has the host remember a mount of an
// earlier boot: of its slots only logged ones count.
func TestWhatAGoldenVolumeHasLoggedOutlivesAPowerCut(t *testing.T) {
	logged := 0
	eachGolden(t, func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		g.remember(m, "00000000-0000-0000-0000-000000000000")
		if changes, intents := g.renumber(m); changes != 1 || intents != 1 {
			t.Fatalf("%d slots and %d intents are armed, want one of each", changes, intents)
		}
		v := g.open(Options{StateDir: g.state()})
		sum := sha256.Sum256(readAll(t, lookup(t, v.Root(), m.Unfinished.Path)))
		if made := hex.EncodeToString(sum[:]) == m.Unfinished.SHA256; made != m.Unfinished.Logged {
			t.Errorf("the change that was under way: made %v, logged %v", made, m.Unfinished.Logged)
		}
		if m.Unfinished.Logged {
			logged++
		}
		ok(t, v.Close())
		g.mustBeClean()
	})
	if logged == 0 {
		t.Error("no golden volume has a logged change")
	}
}

// remember makes the golden host state one of this host.
func (g *goldenPlace) remember(m *goldenManifest, boot string) {
	path := filepath.Join(g.state(), m.Volume+".json")
	var h HostState
	ok(g.t, json.Unmarshal(readPath(g.t, path), &h))
	if !h.Open || h.Session.String() != m.Unfinished.Session || h.Fingerprint != m.Fingerprint {
		g.t.Fatalf("host state %+v", h)
	}
	h.Path = g.backing()
	h.Boot = boot
	ok(g.t, os.WriteFile(path, must(json.Marshal(h))(g.t), 0o600))
}

// renumber puts the inode numbers of the unpacked files into slots and intents, by the
// offsets of docs/FORMAT.md. It returns how many of each are armed.
func (g *goldenPlace) renumber(m *goldenManifest) (changes, intents int) {
	t := g.t
	v := g.open(Options{ReadOnly: true})
	key := v.vk.Derive(crypto.LabelRedo)
	ok(t, v.Close())
	path := filepath.Join(g.backing(), ".kmsfs/redo", m.Unfinished.Session)
	b := readPath(t, path)
	for i := range 16 + 32 {
		at := i * 1_073_152
		if i >= 16 {
			at = 17_170_432 + (i-16)*4096
		}
		if at+4096 > len(b) || b[at] == 0 {
			continue
		}
		h := b[at : at+4096]
		text := string(h[200 : 200+binary.LittleEndian.Uint32(h[4:])])
		parts := strings.Split(text, "\x00") // of an intent: directory and name, twice
		if i < 16 {
			changes++
			g.number(h[40:], text)
		} else {
			intents++
			g.number(h[40:], filepath.Join(parts[0], parts[1]))
			g.number(h[56:], parts[0])
			g.number(h[64:], parts[2])
			g.number(h[72:], "")
		}
		mac := key.MAC(h[4 : 200+len(text)])
		copy(h[4064:], mac[:])
	}
	ok(t, os.WriteFile(path, b, 0o600))
	return changes, intents
}

// number replaces an inode number by that of the unpacked file. The first archives do
// not tell what the numbers were: there it is what is at path below BACKING.
func (g *goldenPlace) number(field []byte, path string) {
	was := binary.LittleEndian.Uint64(field)
	is, known := g.inodes[was]
	switch {
	case was == 0:
		return
	case known:
	case len(g.inodes) > 0:
		is = 1 << 62 // it is gone
	default:
		var st unix.Stat_t
		ok(g.t, unix.Lstat(filepath.Join(g.backing(), path), &st))
		is = st.Ino
	}
	binary.LittleEndian.PutUint64(field, is)
}

// mustBeClean has fsck find nothing but a file that has given up its root, which is
// no error, and what else the test expects.
func (g *goldenPlace) mustBeClean(but ...string) {
	g.t.Helper()
	g.mustFind(append(but, string(FindingNoRoot))...)
}

// mustFind has fsck find exactly what is expected, and no errors.
func (g *goldenPlace) mustFind(want ...string) {
	g.t.Helper()
	r, err := Fsck(context.Background(), g.backing(), Options{
		Providers: g.providers("local", "age"), StateDir: g.fresh, Log: slog.New(slog.DiscardHandler),
	}, FsckOptions{})
	ok(g.t, err)
	if !slices.Equal(kinds(r), want) || r.Errors != 0 || !r.Complete {
		g.t.Errorf("fsck finds%s", show(r))
	}
}
