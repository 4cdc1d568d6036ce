package formatreader

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// manifest is what a golden volume should hold.
type manifest struct {
	Volume      string `json:"volume_id"`
	KeyMode     string `json:"key_mode"`
	Fingerprint string `json:"fingerprint"`
	Passphrase  string `json:"passphrase"`
	Unfinished  struct {
		Session, Path, SHA256, From, To string
		Logged                          bool
	} `json:"unfinished"`
	Rotated struct {
		Generation uint64            `json:"generation"`
		GivenUp    string            `json:"given_up"`
		Retiring   string            `json:"retiring"`
		Active     string            `json:"active"`
		LostFound  map[string]string `json:"lost_found"`
	} `json:"rotated"`
	Entries []Entry `json:"entries"`
}

const goldenDir = "../../volume/testdata/golden"

// eachGolden reads each golden volume VERSION-MODE.
func eachGolden(t *testing.T, test func(t *testing.T, v *volume, m *manifest)) {
	eachArchive(t, "", func(t *testing.T, a *archive, m *manifest) {
		v, err := read(a, m.Passphrase)
		if err != nil {
			t.Fatal(err)
		}
		test(t, v, m)
	})
}

// eachArchive reads the archives VERSION-MODE, or, with a kind, VERSION-KIND-MODE.
func eachArchive(t *testing.T, kind string, test func(t *testing.T, a *archive, m *manifest)) {
	archives, err := filepath.Glob(goldenDir + "/*.tar.gz")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range archives {
		base := strings.TrimSuffix(name, ".tar.gz")
		parts := strings.Split(filepath.Base(base), "-")
		if strings.Join(parts[1:len(parts)-1], "-") != kind {
			continue
		}
		seen++
		t.Run(filepath.Base(base), func(t *testing.T) {
			m := new(manifest)
			if err := json.Unmarshal(fileOf(t, base+".json"), m); err != nil {
				t.Fatal(err)
			}
			a, err := readArchive(bytes.NewReader(fileOf(t, name)))
			if err != nil {
				t.Fatal(err)
			}
			test(t, a, m)
		})
	}
	if seen < 2 {
		t.Fatalf("%d golden volumes of kind %q", seen, kind)
	}
}

func fileOf(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheDocumentIsEnoughToReadGoldenVolumes(t *testing.T) {
	eachGolden(t, func(t *testing.T, v *volume, m *manifest) {
		for _, c := range v.complaints {
			t.Error(c)
		}
		if v.id.String() != m.Volume || v.config.KeyMode != m.KeyMode || fmt.Sprintf("%x", derive(v.key, "fingerprint")) != m.Fingerprint {
			t.Errorf("volume %s of key mode %s, fingerprint %x", v.id, v.config.KeyMode, derive(v.key, "fingerprint"))
		}
		if len(m.Entries) < 70 {
			t.Fatalf("the manifest has %d entries, which cannot be all", len(m.Entries))
		}
		mustAgree(t, v.entries, m.Entries)
		// One of each, or the golden volume tests less than it seems to.
		for _, feature := range []string{"holes", "no root", "was linked", "rewritten"} {
			if !v.features[feature] {
				t.Errorf("no file: %s", feature)
			}
		}
	})
}

func mustAgree(t *testing.T, got, should []Entry) {
	t.Helper()
	want := make(map[string]string)
	for _, e := range should {
		want[e.Path] = shown(t, e)
	}
	for _, e := range got {
		if is := shown(t, e); is != want[e.Path] {
			t.Errorf("%s\n  is     %.600s\n  should %.600s", e.Path, is, want[e.Path])
		}
		delete(want, e.Path)
	}
	for p := range want {
		t.Errorf("%s is missing", p)
	}
}

func shown(t *testing.T, e Entry) string {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTheDocumentIsEnoughToFinishWhatAMountWasInTheMiddleOf(t *testing.T) {
	eachGolden(t, func(t *testing.T, v *volume, m *manifest) {
		changes, intents, err := v.readSlots(m.Unfinished.Session)
		if err != nil || len(changes) != 1 || len(intents) != 1 {
			t.Fatalf("%d changes, %d intents, %v", len(changes), len(intents), err)
		}
		if (changes[0].flags&32 != 0) != m.Unfinished.Logged {
			t.Errorf("flags %d, logged %v", changes[0].flags, m.Unfinished.Logged)
		}
		n, err := v.make(changes[0])
		if err != nil {
			t.Fatal(err)
		}
		file, r, err := v.readHeader(n.content)
		if err != nil || file != changes[0].file {
			t.Fatalf("file %s: %v", file, err)
		}
		var e Entry
		if _, err := v.file(n, &e, "", r.a); err != nil || e.SHA256 != m.Unfinished.SHA256 {
			t.Errorf("%s becomes %s, %v", m.Unfinished.Path, e.SHA256, err)
		}
		in := intents[0]
		if in.kind != 5 || in.flags != 0 || len(in.path) != 4 {
			t.Fatalf("intent %+v", in)
		}
		from, to := filepath.Join(v.backing, in.path[0], in.path[1]), filepath.Join(v.backing, in.path[2])
		if !slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Path == m.Unfinished.From }) || v.archive.inodes[from] == nil || v.archive.inodes[to] == nil {
			t.Errorf("a rename of %s to %s", from, to)
		}
		mustBeRenamed(t, v, intents, m.Unfinished.From)
	})
}

// mustBeRenamed sees that exactly these, by their plaintext paths, have two bindings, those
// of the rename that each is in the middle of.
func mustBeRenamed(t *testing.T, v *volume, intents []intent, paths ...string) {
	t.Helper()
	var got []string
	for _, b := range v.bound {
		if err := v.checkRenamed(b, intents); err != nil {
			t.Errorf("%s: %v", v.plain[b.backing], err)
		}
		got = append(got, v.plain[b.backing])
	}
	slices.Sort(got)
	slices.Sort(paths)
	if !slices.Equal(got, paths) {
		t.Errorf("two bindings have %q, want %q", got, paths)
	}
}

// TestFilesOfItsOwnAreWhatTheDocumentSays looks at what has no plaintext.
func TestFilesOfItsOwnAreWhatTheDocumentSays(t *testing.T) {
	eachGolden(t, func(t *testing.T, v *volume, m *manifest) {
		for name, n := range v.archive.inodes {
			within := name == "backing/.kmsfs" || strings.HasPrefix(name, "backing/.kmsfs/")
			own := strings.HasSuffix(name, "/.kmsfs.dir") || strings.HasPrefix(path.Base(name), "L.") && strings.HasSuffix(name, ".name")
			want := map[byte]int64{tar.TypeDir: 0o700, tar.TypeReg: 0o600}[n.kind]
			if strings.HasPrefix(name, "backing/.kmsfs/sessions/") {
				want = 0o644
			}
			if (within || own) && n.mode != want {
				t.Errorf("%s has mode %o, want %o", name, n.mode, want)
			}
		}
		for i := range 4 {
			name := fmt.Sprintf("backing/.kmsfs/reserve.%d", i)
			b, mode, err := v.archive.file(name)
			if err != nil || len(b) != 786_432 || !isZero(b) || mode != 0o600 {
				t.Errorf("%s: %d bytes, mode %o, %v", name, len(b), mode, err)
			}
		}
		b, mode, err := v.archive.file("backing/.kmsfs/sessions/" + m.Unfinished.Session)
		mustHaveFields(t, "session", b, "id", "host", "pid", "mountpoint", "since", "generation")
		if err != nil || mode != 0o644 || bytes.Count(b, []byte{'\n'}) != 1 {
			t.Errorf("session: %q, mode %o, %v", b, mode, err)
		}
		b, _, err = v.archive.file("state/" + m.Volume + ".json")
		if err != nil {
			t.Fatal(err)
		}
		mustHaveFields(t, "host state", b, "volume_id", "path", "fingerprint", "key_ids", "generation", "manifest", "boot", "session", "open", "unsettled")
		var sidecars int
		for name := range v.archive.inodes {
			if rest, ok := strings.CutPrefix(name, "backing/.kmsfs/keys/"); ok && strings.Contains(rest, "/") {
				sidecars++
			}
		}
		if sidecars != len(v.files) {
			t.Errorf("%d sidecars of %d files", sidecars, len(v.files))
		}
	})
}

func mustHaveFields(t *testing.T, what string, b []byte, fields ...string) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, f := range fields {
		if _, ok := got[f]; !ok {
			t.Errorf("%s has no %s", what, f)
		}
		delete(got, f)
	}
	for f := range got {
		t.Errorf("%s has %s, which the document does not know", what, f)
	}
}
