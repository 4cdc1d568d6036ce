package volume

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

// Volumes of kind rotated have had their wrapping keys changed once, and are in the
// middle of the second time: volume.json of a later generation, one key retiring, and
// sidecars that name the one or the other. A repair has put things into lost+found.

// goldenRotated is what a manifest says of that.
type goldenRotated struct {
	Generation uint64 `json:"generation"` // of volume.json
	GivenUp    string `json:"given_up"`   // keys' ARNs
	Retiring   string `json:"retiring"`
	Active     string `json:"active"`
	// LostFound is what is set aside: SHA-256 by path below lost+found.
	LostFound map[string]string `json:"lost_found"`
}

func TestMakeRotatedGoldenVolumes(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			archive, m := makeRotated(t, mode)
			keepGolden(t, "rotated-"+string(mode), 110<<10, archive, append(must(json.MarshalIndent(m, "", " "))(t), '\n'))
		})
	}
}

func makeRotated(t *testing.T, mode KeyMode) (archive []byte, m goldenManifest) {
	g := newGoldenPlace(t)
	ok(t, os.WriteFile(g.identity(), []byte(goldenIdentity+"\n"), 0o600))
	k := must(local.Create(t.Context(), g.keystore()))(t)
	var arns []string
	for range 3 {
		arns = append(arns, must(k.CreateKey(t.Context(), local.CreateKeyInput{}))(t).ARN)
	}
	uri := func(i int) kmsprovider.KeyURI { return kmsprovider.KeyURI{Provider: "local", KeyID: arns[i]} }
	must(Init(t.Context(), g.backing(), InitOptions{
		Keys: []kmsprovider.KeyURI{uri(0), {Provider: "age", KeyID: goldenRecipient}}, Mode: mode,
		Providers: g.providers("local", "age"), StateDir: g.state(),
	}))(t)
	fill := func(dir string, n int) {
		v := g.open(Options{StateDir: g.state()})
		s := &stage{t: t, v: v}
		s.dir(dir)
		for i := range n {
			s.fill(fmt.Sprintf("%s/%d", dir, i), pattern(50+3000*i, byte(n+i)))
		}
		ok(t, v.Close())
	}
	fill("oldest", 3)
	must(k.Do(t.Context(), k.Root(), &local.RotateKeyOnDemandInput{KeyID: arns[0]}))(t)
	fill("older", 2) // wrapped by another material of the same key
	g.mustRewrap(RewrapOptions{From: uri(0), To: uri(1)})
	fill("old", 3)
	g.loseSomething()

	// The next change of keys ends after some sidecars.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failing := &tap{Backing: System{}, through: func(c call, do func(int) error) error {
		if c.op == "syncfs" { // when all sidecars are done: there are none to do in key mode volume
			return unix.EIO
		}
		return do(c.bytes)
	}}
	r, err := Rewrap(ctx, g.backing(), g.rewrapping(RewrapOptions{From: uri(1), To: uri(2), Backing: failing, Progress: func(done, total int) {
		if done == 4 {
			cancel()
		}
	}}))
	if err == nil || r.Complete {
		t.Fatalf("it came to its end: %+v", r)
	}
	fill("new", 2)

	v := g.open(Options{ReadOnly: true})
	m = goldenManifest{
		FormatVersion: formatVersion, KeyMode: mode, Volume: v.ID().String(), Fingerprint: v.Fingerprint(), Passphrase: goldenPassphrase, Entries: describe(t, v),
		Rotated: &goldenRotated{v.config.Load().Generation, arns[0], arns[1], arns[2], g.lostAndFound()},
	}
	ok(t, v.Close())
	ok(t, k.Close())
	var packed bytes.Buffer
	if mode == ModeVolume {
		g.pack(&packed)
		return packed.Bytes(), m
	}
	// One that goes on is about to exchange a sidecar.
	var mu sync.Mutex // nothing changes while all is packed
	exchanging := &tap{Backing: System{}, through: func(c call, do func(int) error) error {
		mu.Lock()
		defer mu.Unlock()
		if c.op == "renameat2" && strings.HasSuffix(c.name, ".tmp") && len(c.name) == 36 && packed.Len() == 0 {
			g.pack(&packed)
		}
		return do(c.bytes)
	}}
	g.mustRewrap(RewrapOptions{Backing: exchanging})
	return packed.Bytes(), m
}

func (g *goldenPlace) rewrapping(o RewrapOptions) RewrapOptions {
	o.Providers, o.StateDir = g.providers("local", "age"), g.state()
	return o
}

func (g *goldenPlace) mustRewrap(o RewrapOptions) RewrapReport {
	g.t.Helper()
	r, err := Rewrap(g.t.Context(), g.backing(), g.rewrapping(o))
	if err != nil || !r.Complete {
		g.t.Fatalf("Rewrap: %v, %+v", err, r)
	}
	return r
}

// loseSomething has a repair set aside a file with a long name, and the torn last
// block of another one.
func (g *goldenPlace) loseSomething() {
	v := g.open(Options{StateDir: g.state()})
	s := &stage{t: g.t, v: v}
	s.fill("torn", pattern(blk+500, 90))
	s.fill("oldest/"+longOne, pattern(700, 91))
	torn, lost := filepath.Join(g.backing(), s.node("torn").BackingPath()), filepath.Join(g.backing(), s.node("oldest/"+longOne).BackingPath())
	ok(g.t, v.Close())
	ok(g.t, os.Truncate(torn, 4280+300))
	ok(g.t, os.Truncate(lost, 100))
	r := must(Fsck(g.t.Context(), g.backing(), Options{Providers: g.providers("local", "age"), StateDir: g.state()}, FsckOptions{Repair: true}))(g.t)
	if r.Remaining != 0 || len(g.lostAndFound()) != 5 { // two origins, a block, a file and its name
		g.t.Fatalf("%d errors remain, lost+found has %v:%s", r.Remaining, g.lostAndFound(), show(r))
	}
}

// lostAndFound is what was set aside.
func (g *goldenPlace) lostAndFound() map[string]string {
	return hashTree(g.t, filepath.Join(g.backing(), metaDir, lostFoundDir), func(string) bool { return true })
}

// turn allows or forbids the use of a key of the keystore.
func (g *goldenPlace) turn(arn string, on bool) {
	k := must(local.Open(g.t.Context(), g.keystore()))(g.t)
	defer k.Close()
	if on {
		ok(g.t, k.EnableKey(g.t.Context(), arn))
	} else {
		ok(g.t, k.DisableKey(g.t.Context(), arn))
	}
}

// readable are the files whose content opens, which has to be what it was.
func (g *goldenPlace) readable(m *goldenManifest, providers ...string) (paths []string) {
	g.t.Helper()
	v := g.open(Options{ReadOnly: true, Providers: g.providers(providers...)})
	defer v.Close()
	for _, e := range m.Entries {
		if e.Kind != "file" {
			continue
		}
		n := must(byPath{g.t, v}.at(e.Path))(g.t)
		if _, err := tryReadAll(n); err != nil {
			continue
		}
		paths = append(paths, e.Path)
		mustAgree(g.t, []goldenEntry{describeNode(g.t, n, e.Path)}, []goldenEntry{e})
	}
	return paths
}

func TestGoldenVolumesOpenWithTheKeysThatTheirSidecarsName(t *testing.T) {
	eachGoldenOf(t, "rotated", func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		for _, providers := range [][]string{{"local"}, {"age"}} {
			v := g.open(Options{ReadOnly: true, Fingerprint: m.Fingerprint, Providers: g.providers(providers...)})
			if c := v.config.Load(); c.Generation != m.Rotated.Generation || c.Generation < 4 {
				t.Errorf("generation %d, want %d", c.Generation, m.Rotated.Generation)
			}
			mustAgree(t, describe(t, v), m.Entries)
			ok(t, v.Close())
		}
		g.turn(m.Rotated.GivenUp, false)
		files := func(e goldenEntry) bool { return e.Kind != "file" }
		all := len(slices.DeleteFunc(slices.Clone(m.Entries), files))
		g.turn(m.Rotated.Active, false)
		old := g.readable(m, "local")
		g.turn(m.Rotated.Active, true)
		g.turn(m.Rotated.Retiring, false)
		now := g.readable(m, "local")
		if m.KeyMode == ModeVolume {
			if len(old) != all || len(now) != all {
				t.Errorf("of %d files the retiring key opens %d, the active one %d", all, len(old), len(now))
			}
			return
		}
		isNew := func(p string) bool { return strings.HasPrefix(p, "new/") }
		if len(old) == 0 || slices.ContainsFunc(old, isNew) || len(now) <= 2 || !slices.ContainsFunc(now, isNew) || len(old)+len(now) != all {
			t.Errorf("the retiring key opens %q, the active one %q", old, now)
		}
	})
}

func TestAChangeOfKeysThatAGoldenVolumeWasInTheMiddleOfGoesOn(t *testing.T) {
	eachGoldenOf(t, "rotated", func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		r := g.mustRewrap(RewrapOptions{})
		if !slices.Equal(r.Removed, []string{m.Rotated.Retiring}) || r.Generation != m.Rotated.Generation+1 || m.KeyMode == ModeFile && (r.Rewritten == 0 || r.Proven != r.Sidecars) {
			t.Errorf("%+v", r)
		}
		g.turn(m.Rotated.Retiring, false)
		v := g.open(Options{ReadOnly: true, Providers: g.providers("local")})
		mustAgree(t, describe(t, v), m.Entries)
		ok(t, v.Close())
		if left := must(filepath.Glob(filepath.Join(g.backing(), metaDir, "keys/*/*.tmp")))(t); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

func TestGoldenVolumesKeepWhatWasSetAside(t *testing.T) {
	eachGoldenOf(t, "rotated", func(t *testing.T, g *goldenPlace, m *goldenManifest) {
		g.mustHaveLost(m)
		v := g.open(Options{})
		s := &stage{t: t, v: v}
		s.file("old/another", 1000)
		s.check(s.node("old").Unlink("0"))
		ok(t, v.Close())
		sidecars := func() []string { return must(filepath.Glob(filepath.Join(g.backing(), metaDir, "keys/*/*")))(t) }
		before := len(sidecars())
		r := must(Fsck(t.Context(), g.backing(), Options{Providers: g.providers("local", "age"), StateDir: g.fresh}, FsckOptions{Repair: true}))(t)
		if r.Errors != 0 || !r.Complete {
			t.Errorf("fsck finds%s", show(r))
		}
		// What was set aside may be of use: its key stays. All others are of files.
		if after := sidecars(); len(after) != r.Files+1 || len(after) > before {
			t.Errorf("%d sidecars, %d files", len(after), r.Files)
		}
		g.mustHaveLost(m)
	})
}

// mustHaveLost compares lost+found with the manifest.
func (g *goldenPlace) mustHaveLost(m *goldenManifest) {
	g.t.Helper()
	is := g.lostAndFound()
	if len(m.Rotated.LostFound) != 5 {
		g.t.Fatalf("the manifest has %d lost files", len(m.Rotated.LostFound))
	}
	for path, sum := range m.Rotated.LostFound {
		if is[path] != sum {
			g.t.Errorf("lost+found/%s is %q, should be %q", path, is[path], sum)
		}
	}
	if len(is) != len(m.Rotated.LostFound) {
		g.t.Errorf("lost+found has %v", is)
	}
}
