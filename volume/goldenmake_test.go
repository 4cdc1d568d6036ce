package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/age"
	"kmsfs/kmsprovider/local"
)

var goldenMake = flag.String("golden.make", "", "make golden volumes of that name, one for each key mode; those that are there are kept")

const (
	goldenDir        = "testdata/golden"
	goldenPassphrase = "golden volumes hold no secrets"
	goldenRecipient  = "age1ypjzz82lmxrvy750wuf6zwyvxxvu9zw9y5ry5xucuc6cul3zk5vqxep23w"
	goldenIdentity   = "AGE-SECRET-KEY-1X2R35T4SSH8V7UMGG0SAXV8NYZ6XVY6TH80D9URMKXHLEXUL8T5SNSJHN9"
)

// goldenPlace is a directory with a volume, its keystore, its age identity and its
// host state, as they are in an archive.
type goldenPlace struct {
	t     *testing.T
	place string
	fresh string // a state directory that knows nothing
	// inodes are the numbers of unpacked files, by those that they had.
	inodes map[uint64]uint64
}

func newGoldenPlace(t *testing.T) *goldenPlace {
	return &goldenPlace{t: t, place: t.TempDir(), fresh: filepath.Join(t.TempDir(), "state")}
}

func (g *goldenPlace) backing() string  { return filepath.Join(g.place, "backing") }
func (g *goldenPlace) state() string    { return filepath.Join(g.place, "state") }
func (g *goldenPlace) identity() string { return filepath.Join(g.place, "age.txt") }

func (g *goldenPlace) keystore() local.Options {
	return local.Options{
		Path:       filepath.Join(g.place, "keystore.json"),
		AuditLog:   filepath.Join(g.t.TempDir(), "audit"),
		Passphrase: func() ([]byte, error) { return []byte(goldenPassphrase), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 1024, Threads: 2},
	}
}

// providers has the keystore, the age identity, or both.
func (g *goldenPlace) providers(names ...string) *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	for _, name := range names {
		r.Register(name, func(ctx context.Context) (kmsprovider.Provider, error) {
			if name == "age" {
				return age.New(age.FromFile(g.identity())), nil
			}
			return local.Open(ctx, g.keystore())
		})
	}
	return r
}

func (g *goldenPlace) open(o Options) *Volume {
	g.t.Helper()
	if o.Providers == nil {
		o.Providers = g.providers("local", "age")
	}
	if o.StateDir == "" {
		o.StateDir = g.fresh
	}
	v, err := Open(g.t.Context(), g.backing(), o)
	if err != nil {
		g.t.Fatalf("open golden volume: %v", err)
	}
	g.t.Cleanup(func() {
		if v.ctx.Err() == nil { // the test failed
			_ = v.Close()
		}
	})
	return v
}

// TestMakeGoldenVolumes makes new ones where it is asked to. It shows that they are
// still what the tests below say, and no more.
func TestMakeGoldenVolumes(t *testing.T) {
	for _, mode := range []KeyMode{ModeFile, ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("devices need mknod(2): run as root")
			}
			archive, manifest := makeGolden(t, mode)
			keepGolden(t, string(mode), 300<<10, archive, manifest)
		})
	}
}

// keepGolden puts a golden volume into the repository, if it is to.
func keepGolden(t *testing.T, of string, most int, archive, manifest []byte) {
	t.Helper()
	if len(archive) > most {
		t.Errorf("an archive of %d bytes is too large for the repository", len(archive))
	}
	if *goldenMake == "" || t.Failed() {
		return
	}
	base := filepath.Join(goldenDir, *goldenMake+"-"+of)
	for name, b := range map[string][]byte{base + ".tar.gz": archive, base + ".json": manifest} {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		ok(t, err)
		_, err = f.Write(b)
		ok(t, err)
		ok(t, f.Close())
	}
}

func makeGolden(t *testing.T, mode KeyMode) (archive, manifest []byte) {
	g := newGoldenPlace(t)
	ok(t, os.WriteFile(g.identity(), []byte(goldenIdentity+"\n"), 0o600))
	keystore, err := local.Create(t.Context(), g.keystore())
	ok(t, err)
	_, err = keystore.EnsureDefaultKey(t.Context())
	ok(t, err)
	ok(t, keystore.Close())
	info, err := Init(t.Context(), g.backing(), InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}, {Provider: "age", KeyID: goldenRecipient}},
		Mode: mode, Providers: g.providers("local", "age"), StateDir: g.state(),
	})
	ok(t, err)
	v := g.open(Options{StateDir: g.state()})
	(&goldenTree{t, v}).fill()
	ok(t, v.Close())

	store := &tap{Backing: System{}, through: func(c call, do func(int) error) error { return do(c.bytes) }}
	strict := mode == ModeVolume
	v = g.open(Options{StateDir: g.state(), Backing: store, Strict: strict})
	(&goldenTree{t, v}).change()
	m := goldenManifest{
		FormatVersion: info.FormatVersion, KeyMode: mode, Volume: info.ID.String(), Fingerprint: info.Fingerprint,
		Passphrase: goldenPassphrase, Entries: describe(t, v),
	}
	m.Unfinished.Logged = strict
	archive = g.interrupted(v, store, &m)
	ok(t, v.Close())
	manifest, err = json.MarshalIndent(m, "", " ")
	ok(t, err)
	return archive, append(manifest, '\n')
}

// interrupted packs all while a write and, in the midst of that, a rename are under
// way: what a mount leaves that is killed then.
func (g *goldenPlace) interrupted(v *Volume, store *tap, m *goldenManifest) []byte {
	t := g.t
	changed := lookup(t, v.Root(), "changed")
	content := readAll(t, changed)
	data := pattern(2*goldenBlock, 62)
	copy(content[100:], data)
	sum := sha256.Sum256(content)
	u := &m.Unfinished
	u.Session, u.Path, u.SHA256 = v.session.id.String(), "changed", hex.EncodeToString(sum[:])
	u.From, u.To = "contents/renamed", "links/renamed again"

	var archive bytes.Buffer
	straight := func(c call, do func(int) error) error { return do(c.bytes) }
	store.turn(func(c call, do func(int) error) error {
		if c.op != "pwrite" {
			return do(c.bytes)
		}
		store.turn(func(c call, do func(int) error) error {
			if c.op == "renameat2" {
				store.turn(straight)
				g.pack(&archive)
			}
			return do(c.bytes)
		})
		ok(t, lookup(t, v.Root(), "contents").Rename("renamed", lookup(t, v.Root(), "links"), "renamed again", 0))
		return do(c.bytes)
	})
	writeAll(t, changed, data, 100)
	if archive.Len() == 0 {
		t.Fatal("nothing was packed")
	}
	return archive.Bytes()
}

// pack leaves out what belongs to the host where it is made.
func (g *goldenPlace) pack(w io.Writer) {
	packTar(g.t, w, g.place, func(path string, b []byte) []byte {
		switch {
		case strings.HasPrefix(path, "backing/.kmsfs/sessions/"):
			var s sessionInfo
			ok(g.t, json.Unmarshal(b, &s))
			s.Host, s.PID = "golden", 1
			return append(must(json.Marshal(s))(g.t), '\n')
		case strings.HasPrefix(path, "state/") && strings.HasSuffix(path, ".json"):
			var h HostState
			ok(g.t, json.Unmarshal(b, &h))
			h.Path, h.Boot = "/golden", "00000000-0000-0000-0000-000000000000"
			return append(must(json.MarshalIndent(h, "", "  "))(g.t), '\n')
		}
		return b
	})
}
