package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

func newStore(t testing.TB) *hostStore {
	t.Helper()
	return must(openHostStore(filepath.Join(t.TempDir(), "deep", "state")))(t)
}

// known makes the store know a volume in a directory of its own.
func known(t testing.TB, s *hostStore, id crypto.ID) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if _, _, err := s.admit(dir, id, [32]byte{1}, []string{"key 1"}, AdmitOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func loadState(t testing.TB, s *hostStore, id crypto.ID) *HostState {
	t.Helper()
	h := must(s.load(id))(t)
	if h == nil {
		t.Fatalf("volume %s is not known", id)
	}
	return h
}

func TestHostStateLiesWhereXDGOrRootOrTheHomeDirectorySays(t *testing.T) {
	for _, c := range []struct {
		xdg  string
		euid int
		want string
	}{
		{"/x/state", 1000, "/x/state/kmsfs"},
		{"/x/state", 0, "/x/state/kmsfs"},
		{"", 0, "/var/lib/kmsfs"},
		{"", 1000, "/home/me/.local/state/kmsfs"},
		{"relative", 1000, "/home/me/.local/state/kmsfs"},
	} {
		getenv := func(name string) string { return map[string]string{"XDG_STATE_HOME": c.xdg}[name] }
		if got := DefaultStateDir(getenv, c.euid, "/home/me"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, dir := range []string{"", "state", DefaultStateDir(func(string) string { return "" }, 1000, "")} {
		if _, err := openHostStore(dir); err == nil {
			t.Errorf("%q is accepted as state directory", dir)
		}
	}
}

func TestHostStateIsKeptInAFileOfItsOwnerAlone(t *testing.T) {
	s, id := newStore(t), crypto.ID{0xcd}
	if h, err := s.load(id); h != nil || err != nil {
		t.Fatalf("before anything was kept: %+v, %v", h, err)
	}
	dir := known(t, s, id)
	if _, err := s.update(id, func(h *HostState) { h.Manifest = 9 }); err != nil {
		t.Fatal(err)
	}
	h := loadState(t, s, id)
	if h.ID != id || h.Path != must(filepath.EvalSymlinks(dir))(t) || h.Fingerprint != "01"+strings.Repeat("0", 62) || len(h.KeyIDs) != 1 || h.KeyIDs[0] != "key 1" || h.Manifest != 9 || h.Open {
		t.Errorf("loaded %+v", h)
	}
	file := filepath.Join(s.dir, "cd"+strings.Repeat("0", 30)+".json")
	if st := must(os.Lstat(file))(t); st.Mode() != 0o600 {
		t.Errorf("file has mode %v", st.Mode())
	}
	if st := must(os.Lstat(s.dir))(t); st.Mode() != 0o700|os.ModeDir {
		t.Errorf("directory has mode %v", st.Mode())
	}
}

func TestDamagedHostStateIsRefusedByItsPath(t *testing.T) {
	s, id := newStore(t), crypto.ID{1}
	dir := known(t, s, id)
	good := string(readFile(t, s.file(id)))
	elsewhere := filepath.Join(t.TempDir(), "x")
	writeFile(t, elsewhere, []byte(good))
	for what, damage := range map[string]func() error{
		"empty":          func() error { return os.WriteFile(s.file(id), nil, 0o600) },
		"truncated":      func() error { return os.WriteFile(s.file(id), []byte(good[:len(good)/2]), 0o600) },
		"two objects":    func() error { return os.WriteFile(s.file(id), []byte(good+good), 0o600) },
		"null":           func() error { return os.WriteFile(s.file(id), []byte("null"), 0o600) },
		"another volume": func() error { return os.WriteFile(s.file(id), []byte(strings.Replace(good, "0100", "0200", 1)), 0o600) },
		"no fingerprint": func() error {
			return os.WriteFile(s.file(id), []byte(strings.Replace(good, `"fingerprint"`, `"x"`, 1)), 0o600)
		},
		"huge":            func() error { return os.WriteFile(s.file(id), make([]byte, maxHostState+1), 0o600) },
		"a symbolic link": func() error { return os.Symlink(elsewhere, s.file(id)) },
	} {
		if err := os.Remove(s.file(id)); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if h, err := s.load(id); err == nil || h != nil || !strings.Contains(err.Error(), s.file(id)) {
			t.Errorf("%s: %+v, %v", what, h, err)
		}
		// Nor is it trusted anew by itself.
		if _, _, err := s.admit(dir, id, [32]byte{1}, nil, AdmitOptions{}); err == nil {
			t.Errorf("%s: admitted", what)
		}
	}
}

func TestChangesOfHostStateByManyAtOnceAreAllKept(t *testing.T) {
	s, id := newStore(t), crypto.ID{1}
	known(t, s, id)
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 5 {
				if _, err := s.update(id, func(h *HostState) { h.Manifest++ }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if h := loadState(t, s, id); h.Manifest != 50 {
		t.Errorf("%d of 50 changes kept", h.Manifest)
	}
	if _, err := s.update(crypto.ID{2}, func(*HostState) {}); err == nil {
		t.Error("an unknown volume was changed")
	}
}

func TestHowTheLastSessionEndedIsToldApart(t *testing.T) {
	s, id := newStore(t), crypto.ID{1}
	known(t, s, id)
	one, two := crypto.ID{0x11}, crypto.ID{0x22}
	check := func(what, boot string, want ending, torn bool) {
		t.Helper()
		h := loadState(t, s, id)
		if got := h.lastEnd(boot); got != want || h.mayBeTorn(boot) != torn {
			t.Errorf("%s: ended %v, may be torn %v; want %v, %v", what, got, h.mayBeTorn(boot), want, torn)
		}
	}
	begin := func(session crypto.ID, boot string) {
		t.Helper()
		h, err := s.begin(id, session, boot)
		if err != nil || h.Session != session || h.Boot != boot || !h.Open {
			t.Fatalf("begin: %+v, %v", h, err)
		}
	}
	finish := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check("never open", "boot 1", endClean, false)
	begin(one, "boot 1")
	check("killed", "boot 1", endKilled, false)
	check("power cut", "boot 2", endPowerLoss, true)
	finish(s.end(id, two))
	check("another session's end", "boot 1", endKilled, false)
	finish(s.end(id, one))
	check("clean", "boot 1", endClean, false)
	check("clean, and another boot", "boot 2", endClean, false)

	begin(one, "boot 1")
	begin(two, "boot 2")
	check("killed after a power cut", "boot 2", endKilled, true)
	finish(s.cancel(id, two))
	check("a mount after a power cut that failed", "boot 2", endClean, true)
	begin(one, "boot 2")
	begin(two, "boot 2")
	check("killed twice after a power cut", "boot 2", endKilled, true)
	finish(s.end(id, two))
	check("clean after a power cut", "boot 2", endClean, false)
	if h := loadState(t, s, id); h.Session != two {
		t.Errorf("last session is %s", h.Session)
	}
}

func TestTheBootIDIsTheSameTwice(t *testing.T) {
	a, b := must(bootID())(t), must(bootID())(t)
	if a == "" || a != b || strings.TrimSpace(a) != a {
		t.Errorf("%q, %q", a, b)
	}
}

func TestAPowerCutRelaxesSealsUntilACheckSettlesThemAndNeitherAKillNorACleanUnmountDoes(t *testing.T) {
	b := newBench(t, ModeVolume)
	s := must(openHostStore(b.state))(t)
	v := b.open()
	id := v.id
	if v.relaxed {
		t.Error("relaxed after init")
	}
	b.close(v)
	must(s.begin(id, crypto.ID{1}, "a boot of before"))(t)
	must(s.begin(id, crypto.ID{2}, must(bootID())(t)))(t) // and this one was killed
	ro := b.open(func(o *Options) { o.ReadOnly = true })
	if !ro.relaxed {
		t.Error("a read-only mount enforces seals of unsettled writes")
	}
	b.close(ro)
	if v = b.open(); !v.relaxed {
		t.Error("seals of unsettled writes are enforced")
	}
	b.close(v)
	if v = b.open(); !v.relaxed {
		t.Error("a clean unmount without a check settles what a power cut left")
	}
	settle(t, v)
	b.close(v)
	if v = b.open(); v.relaxed {
		t.Error("relaxed after a check")
	}
}

func TestAnOpenThatFailsAnywhereSettlesNothingAndHoldsNothing(t *testing.T) {
	b := newBench(t, ModeVolume)
	s := must(openHostStore(b.state))(t)
	v := b.open()
	id := v.id
	b.close(v)
	for n := 0; ; n++ {
		if n > 500 {
			t.Fatal("never opens")
		}
		// A power cut, then a session that was killed.
		must(s.begin(id, crypto.ID{1}, "a boot of before"))(t)
		before := openDescriptors(t)
		v, err := b.tryOpen(func(o *Options) { o.Backing = &brittle{left: n} })
		if err == nil {
			if n < 10 {
				t.Errorf("opens though call %d failed", n)
			}
			b.close(v)
			if v.relaxed {
				break
			}
			t.Fatalf("call %d failed, and the power cut is forgotten", n)
		}
		if h := loadState(t, s, id); !h.mayBeTorn(must(bootID())(t)) {
			t.Fatalf("open failing at call %d (%v) has settled the power cut", n, err)
		}
		if after := openDescriptors(t); after > before { // fewer where something that another test left was collected
			t.Errorf("open failing at call %d leaves %d descriptors", n, after-before)
		}
		info := must(ReadInfo(b.dir))(t)
		if len(info.Sessions) != 0 {
			t.Fatalf("open failing at call %d leaves the volume in use", n)
		}
	}
}

func openDescriptors(t testing.TB) int {
	t.Helper()
	return len(must(os.ReadDir("/proc/self/fd"))(t))
}

func TestHostStateThatCannotBeWrittenKeepsTheVolumeShut(t *testing.T) {
	b := newBench(t, ModeVolume)
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, nil)
	for _, dir := range []string{file, filepath.Join(file, "below"), "", "relative"} {
		if v, err := b.tryOpen(func(o *Options) { o.StateDir = dir }); err == nil {
			b.close(v)
			t.Errorf("opens with state directory %q", dir)
		}
	}
	if info := must(ReadInfo(b.dir))(t); len(info.Sessions) != 0 {
		t.Error("the volume stays in use")
	}
	b.open()
}

func TestReplacingHostStateSurvivesFailures(t *testing.T) {
	dir := t.TempDir()
	fd := openDir(t, dir)
	for n := 0; ; n++ {
		writeFile(t, filepath.Join(dir, "x.json"), []byte("old"))
		err := replaceFile(&brittle{left: n}, fd, "x.json", []byte("newer"))
		now := string(readFile(t, dir, "x.json"))
		if now != "old" && now != "newer" || err == nil && now != "newer" {
			t.Errorf("failing at call %d (%v) leaves %q", n, err, now)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EIO) {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprint(must(os.ReadDir(dir))(t)); got != "[- x.json]" {
		t.Errorf("left behind: %s", got)
	}
}
