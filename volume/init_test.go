package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
)

// initOptions are those of a volume under fakeKey, under the name of its alias.
func (b *bench) initOptions() InitOptions {
	return InitOptions{Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}}, Mode: ModeVolume, Providers: b.registry(), StateDir: b.state}
}

// init makes another volume in b.dir.
func (b *bench) init() Info {
	b.t.Helper()
	return must(Init(context.Background(), b.dir, b.initOptions()))(b.t)
}

// unmade is a bench without a volume.
func unmade(t testing.TB) *bench {
	return &bench{t: t, dir: filepath.Join(t.TempDir(), "backing"), state: filepath.Join(t.TempDir(), "state"), kms: newFakeKMS(), log: new(bytes.Buffer)}
}

// tree describes everything below dir, to see whether it is as it was.
func tree(t testing.TB, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		content := ""
		if st.Mode().IsRegular() {
			content = string(readFile(t, path))
		}
		out = append(out, fmt.Sprint(strings.TrimPrefix(path, dir), st.Mode(), st.ModTime().UnixNano(), content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInitMakesAVolumeThatOpens(t *testing.T) {
	b := unmade(t)
	o := b.initOptions()
	o.Now = func() time.Time { return time.Date(2026, 5, 1, 10, 0, 0, 999, time.FixedZone("", 7200)) }
	info, err := Init(t.Context(), b.dir, o)
	if err != nil {
		t.Fatal(err)
	}
	if info.Path != b.dir || info.ID.IsZero() || info.FormatVersion != 1 || !info.Created.Equal(time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)) ||
		info.Generation != 1 || info.KeyMode != ModeVolume || len(info.Features) != 0 || !info.Authenticated ||
		len(info.Keys) != 1 || info.Keys[0] != (KeyInfo{"local", fakeKey, keyActive}) {
		t.Errorf("info %+v", info)
	}
	if entries := must(os.ReadDir(filepath.Join(b.dir, metaDir)))(t); len(entries) != 6 {
		t.Errorf(".kmsfs holds %v", entries)
	}
	for _, name := range []string{"", "keys", "sessions", "redo", "links", "lost+found"} {
		if st := must(os.Lstat(filepath.Join(b.dir, metaDir, name)))(t); st.Mode() != os.ModeDir|0o700 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if st := must(os.Lstat(b.dir))(t); st.Mode() != os.ModeDir|0o700 {
		t.Errorf("the directory has mode %v", st.Mode())
	}
	v := b.open()
	if v.Fingerprint() != info.Fingerprint || v.ID() != info.ID {
		t.Errorf("opened volume %s, fingerprint %s", v.ID(), v.Fingerprint())
	}
	// The host knows it since Init.
	if strings.Contains(b.log.String(), "first time") {
		t.Errorf("logged %s", b.log)
	}
}

func TestInitMakesAVolumeInAnEmptyDirectory(t *testing.T) {
	b := unmade(t)
	if err := os.Mkdir(b.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	b.init()
	if st := must(os.Lstat(b.dir))(t); st.Mode() != os.ModeDir|0o750 {
		t.Errorf("its mode became %v", st.Mode())
	}
	b.open()
}

func TestInitRefusesADirectoryThatIsNotEmptyAndLeavesItAsItIs(t *testing.T) {
	for what, fill := range map[string]func(dir string) error{
		"a file":           func(dir string) error { return os.WriteFile(filepath.Join(dir, "letter"), []byte("dear"), 0o644) },
		"a hidden file":    func(dir string) error { return os.WriteFile(filepath.Join(dir, ".letter"), nil, 0o644) },
		"a directory":      func(dir string) error { return os.Mkdir(filepath.Join(dir, "letters"), 0o755) },
		"a dangling link":  func(dir string) error { return os.Symlink("nowhere", filepath.Join(dir, "link")) },
		"a bare .kmsfs":    func(dir string) error { return os.Mkdir(filepath.Join(dir, metaDir), 0o700) },
		"a file as .kmsfs": func(dir string) error { return os.WriteFile(filepath.Join(dir, metaDir), nil, 0o644) },
	} {
		b := unmade(t)
		if err := errors.Join(os.Mkdir(b.dir, 0o755), fill(b.dir)); err != nil {
			t.Fatal(err)
		}
		before := tree(t, b.dir)
		_, err := Init(t.Context(), b.dir, b.initOptions())
		entry := must(os.ReadDir(b.dir))(t)[0].Name()
		if !errors.Is(err, ErrExists) || errors.Is(err, ErrIsVolume) || !strings.Contains(err.Error(), entry) || !strings.Contains(err.Error(), b.dir) {
			t.Errorf("%s: %v", what, err)
		}
		if !reflect.DeepEqual(tree(t, b.dir), before) {
			t.Errorf("%s: changed", what)
		}
		if totalCalls(b.kms) != 0 {
			t.Errorf("%s: the KMS was called", what)
		}
	}
}

func TestInitRefusesADirectoryThatHoldsAVolumeAndLeavesItAsItIs(t *testing.T) {
	b := unmade(t)
	b.init()
	before, state := tree(t, b.dir), tree(t, b.state)
	if _, err := Init(t.Context(), b.dir, b.initOptions()); !errors.Is(err, ErrIsVolume) || errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if !reflect.DeepEqual(tree(t, b.dir), before) || !reflect.DeepEqual(tree(t, b.state), state) {
		t.Error("changed")
	}
	b.open()
}

func TestInitWithWrongOptionsTouchesNothing(t *testing.T) {
	for what, spoil := range map[string]func(*InitOptions){
		"no keys":         func(o *InitOptions) { o.Keys = nil },
		"a missing key":   func(o *InitOptions) { o.Keys[0].KeyID = foreignKey },
		"an unknown mode": func(o *InitOptions) { o.Mode = "none" },
		"no state":        func(o *InitOptions) { o.StateDir = "" },
		"no random":       func(o *InitOptions) { o.Random = strings.NewReader("short") },
		"no provider":     func(o *InitOptions) { o.Keys[0].Provider = "vault" },
	} {
		b := unmade(t)
		o := b.initOptions()
		spoil(&o)
		if _, err := Init(t.Context(), b.dir, o); err == nil || !strings.Contains(err.Error(), b.dir) {
			t.Errorf("%s: %v", what, err)
		}
		for _, dir := range []string{b.dir, b.state} {
			if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s was made", what, dir)
			}
		}
		if b.kms.count("GenerateDataKey") != 0 {
			t.Errorf("%s: a key was made", what)
		}
	}
}

func TestInitThatFailsRemovesWhatItMade(t *testing.T) {
	for _, existed := range []bool{false, true} {
		for what, spoil := range map[string]func(b *bench){
			"KMS":        func(b *bench) { b.kms.setFail(func(string) error { return kmsprovider.ErrAccessDenied }) },
			"host state": func(b *bench) { writeFile(b.t, b.state, []byte("a file")) },
		} {
			b := unmade(t)
			if existed {
				if err := os.Mkdir(b.dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			spoil(b)
			if _, err := Init(t.Context(), b.dir, b.initOptions()); err == nil {
				t.Errorf("%s: succeeds", what)
			}
			entries, err := os.ReadDir(b.dir)
			if existed && err != nil || !existed && !errors.Is(err, fs.ErrNotExist) || len(entries) != 0 {
				t.Errorf("%s, directory existed %v: left %v, %v", what, existed, entries, err)
			}
		}
	}
}

func TestInitLeavesWhatTurnsUpWhileTheKeyIsMade(t *testing.T) {
	b := unmade(t)
	b.kms.setFail(func(op string) error {
		if op != "GenerateDataKey" {
			return nil
		}
		return errors.Join(os.Mkdir(b.dir, 0o755), os.WriteFile(filepath.Join(b.dir, "letter"), []byte("dear"), 0o644))
	})
	if _, err := Init(t.Context(), b.dir, b.initOptions()); !errors.Is(err, ErrExists) {
		t.Error(err)
	}
	if entries := must(os.ReadDir(b.dir))(t); len(entries) != 1 || string(readFile(t, b.dir, "letter")) != "dear" {
		t.Errorf("left %v", entries)
	}
}

func TestInitThatCannotMakeTheDirectorySaysSo(t *testing.T) {
	b := unmade(t)
	b.dir = filepath.Join(b.dir, "in", "nothing")
	if _, err := Init(t.Context(), b.dir, b.initOptions()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, []byte("x"))
	if _, err := Init(t.Context(), file, b.initOptions()); !errors.Is(err, unix.ENOTDIR) || string(readFile(t, file)) != "x" {
		t.Error(err)
	}
}

func TestOfTwoInitsOfOneDirectoryOneSucceeds(t *testing.T) {
	for range 20 {
		b := unmade(t)
		// Both have looked before either writes.
		var looked sync.WaitGroup
		looked.Add(2)
		meet := readerFunc(func(p []byte) (int, error) {
			looked.Done()
			looked.Wait()
			return rand.Read(p)
		})
		var errs [2]error
		var both sync.WaitGroup
		for i := range errs {
			both.Go(func() {
				o := b.initOptions()
				o.Random = meet
				_, errs[i] = Init(context.Background(), b.dir, o)
			})
		}
		both.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("%v; %v", errs[0], errs[1])
		}
		if err := errors.Join(errs[:]...); !errors.Is(err, ErrIsVolume) && !errors.Is(err, ErrExists) {
			t.Error(err)
		}
		b.open()
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
