package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// sharedPlace is one directory, as two hosts see it.
type sharedPlace [2]string

// onSharedPlaces runs a test on a directory of a local file system, which two daemons
// have as two hosts would.
func onSharedPlaces(t *testing.T, test func(t *testing.T, h *hosts)) {
	needFuse(t)
	dir := t.TempDir()
	test(t, newHosts(t, sharedPlace{dir, dir}))
}

// hosts are two mounts of one volume, which nobody but them knows of each other.
type hosts struct {
	t   *testing.T
	one *daemon
	two *daemon
	few bool // the store is slow: fewer rounds will do
}

// newHosts makes a volume in a place and mounts it on two hosts, which remember
// separately what they know of it.
func newHosts(t *testing.T, place sharedPlace) *hosts {
	t.Helper()
	home := newDaemon(t) // for keystore and passphrase
	host := func(i int) *daemon {
		d := &daemon{t: t, bin: home.bin, Backing: filepath.Join(place[i], "volume"), Dir: t.TempDir(), flags: []string{"--shared"}}
		run := t.TempDir()
		if err := os.Chmod(run, 0o700); err != nil {
			t.Fatal(err)
		}
		d.env = append(append([]string{}, home.env...), "XDG_RUNTIME_DIR="+run, "XDG_STATE_HOME="+t.TempDir())
		return d
	}
	h := &hosts{t: t, one: host(0), two: host(1)}
	h.one.run("init", h.one.Backing)
	for _, d := range h.both() {
		t.Cleanup(d.kill)
		d.start()
	}
	return h
}

func (h *hosts) both() []*daemon { return []*daemon{h.one, h.two} }

// at is a path on the first host, and on the second.
func (h *hosts) at(p string) (one, two string) {
	return filepath.Join(h.one.Dir, p), filepath.Join(h.two.Dir, p)
}

// rounds is how often to do something.
func (h *hosts) rounds(n int) int {
	if h.few {
		return max(2, n/4)
	}
	return n
}

// check makes what is on the mounts be checked by fsck when both are gone.
func (h *hosts) check() {
	h.t.Helper()
	for _, d := range h.both() {
		if d.cmd != nil {
			d.stop()
		}
	}
	h.one.run("fsck", h.one.Backing)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content must be that of a file.
func content(t *testing.T, name, want string) {
	t.Helper()
	if got, err := os.ReadFile(name); err != nil || string(got) != want {
		t.Errorf("%s: %.100q, %v, want %.100q", name, got, err, want)
	}
}

// eachOther calls with the hosts' paths of a name, both ways round.
func (h *hosts) eachOther(name string, call func(a, b string)) {
	for i := range 2 {
		a, b := h.at(fmt.Sprintf("%s%d", name, i))
		if i == 1 {
			a, b = b, a
		}
		call(a, b)
	}
}
