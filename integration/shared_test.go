package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The guarantees of docs/SHARED.md, on two mounts of one directory. The same run over
// GlusterFS (gluster_test.go).

type sharedTest struct {
	name string
	test func(t *testing.T, h *hosts)
}

var sharedTests = []sharedTest{
	{"what is closed is seen by who opens", closedIsSeen},
	{"names that change", sharedNames},
	{"attributes", sharedAttributes},
	{"locks", sharedLocks},
	{"locks of processes that end", sharedLocksEnd},
	{"files that are open", sharedOpenFiles},
	{"mounts that are refused", sharedRefused},
	{"appends", sharedAppends},
	{"parts of blocks", sharedCells},
	{"sqlite", sharedSqlite},
	{"git", sharedGit},
	{"a host that dies", sharedDeath},
}

func TestSharedMountsKeepTheirGuarantees(t *testing.T) {
	t.Parallel()
	for _, s := range sharedTests {
		t.Run(s.name, func(t *testing.T) { onSharedPlaces(t, s.test) })
	}
}

// Each guarantee in docs/SHARED.md names a test, and each test is named there.
func TestTheDocumentOfSharedMountsNamesItsTests(t *testing.T) {
	doc, err := os.ReadFile("../docs/SHARED.md")
	ok(t, err)
	named := 0
	for _, row := range readTable(t, "../docs/SHARED.md", "what", "tested as") {
		for _, name := range strings.Split(row[1], ", ") {
			if name == "–" || name == "the same" {
				continue
			}
			named++
			if !slices.ContainsFunc(sharedTests, func(s sharedTest) bool { return s.name == name }) {
				t.Errorf("%q names the test %q, which does not exist", row[0], name)
			}
		}
	}
	if named < 10 {
		t.Errorf("%d tests are named", named)
	}
	for _, s := range sharedTests {
		if !strings.Contains(strings.ToLower(string(doc)), s.name) {
			t.Errorf("the test %q is not named", s.name)
		}
	}
}

func closedIsSeen(t *testing.T, h *hosts) {
	h.eachOther("file", func(a, b string) {
		if _, err := os.Stat(b); !errors.Is(err, os.ErrNotExist) { // and is cached, if anything is
			t.Errorf("before it is made: %v", err)
		}
		want := ""
		for i, part := range []string{"one", "", strings.Repeat("block", 3000), "two", strings.Repeat("x", 1<<20), "end"} {
			switch i {
			case 1: // cut and written anew
				want = "anew"
				ok(t, os.WriteFile(a, []byte(want), 0o644))
			case 3: // into the middle
				f, err := os.OpenFile(a, os.O_WRONLY, 0)
				ok(t, err)
				_, err = f.WriteAt([]byte(part), 4090)
				ok(t, err)
				ok(t, f.Close())
				want = want[:4090] + part + want[4090+len(part):]
			default:
				f, err := os.OpenFile(a, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
				ok(t, err)
				_, err = io.WriteString(f, part)
				ok(t, err)
				ok(t, f.Close())
				want += part
			}
			content(t, b, want)
			if st, err := os.Stat(b); err != nil || st.Size() != int64(len(want)) {
				t.Errorf("size after %d: %v, %v", i, st.Size(), err)
			}
		}
		ok(t, os.Truncate(a, 5000))
		content(t, b, want[:5000])
		// Who has it open sees it as well: nothing is cached.
		f, err := os.Open(b)
		ok(t, err)
		defer f.Close()
		ok(t, os.WriteFile(a, []byte("while it is open"), 0o644))
		got := make([]byte, 100)
		if n, err := f.ReadAt(got, 0); err != io.EOF || string(got[:n]) != "while it is open" {
			t.Errorf("an open file: %q, %v", got[:n], err)
		}
	})
	h.check()
}

func sharedNames(t *testing.T, h *hosts) {
	h.eachOther("dir", func(a, b string) {
		ok(t, os.Mkdir(a, 0o755))
		names := func() (names []string) {
			entries, err := os.ReadDir(b)
			ok(t, err)
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return names
		}
		want := func(what string, want ...string) {
			t.Helper()
			if got := names(); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		in := func(dir, name string) string { return filepath.Join(dir, name) }
		want("empty")
		ok(t, os.WriteFile(in(a, "f"), []byte("f"), 0o644))
		want("a file", "f")
		ok(t, os.Rename(in(a, "f"), in(a, "g")))
		want("renamed", "g")
		if _, err := os.Stat(in(b, "f")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the old name: %v", err)
		}
		content(t, in(b, "g"), "f")
		ok(t, os.WriteFile(in(a, "h"), []byte("h"), 0o644))
		content(t, in(b, "h"), "h")
		ok(t, os.Rename(in(a, "h"), in(a, "g")))
		content(t, in(b, "g"), "h")
		want("over another", "g")
		ok(t, os.Link(in(a, "g"), in(a, "link")))
		content(t, in(b, "link"), "h")
		ok(t, os.WriteFile(in(b, "link"), []byte("through the link"), 0o644))
		content(t, in(a, "g"), "through the link")
		ok(t, os.Symlink("g", in(a, "sym")))
		content(t, in(b, "sym"), "through the link")
		ok(t, os.Remove(in(a, "sym")))
		ok(t, os.Symlink("nowhere", in(a, "sym")))
		if to, err := os.Readlink(in(b, "sym")); err != nil || to != "nowhere" {
			t.Errorf("a link made anew: %q, %v", to, err)
		}
		want("links", "g", "link", "sym")
		long := strings.Repeat("l", 250)
		ok(t, os.Rename(in(a, "link"), in(a, long)))
		content(t, in(b, long), "through the link")
		ok(t, os.Remove(in(b, long)))
		want("removed", "g", "sym")
		ok(t, os.Mkdir(in(a, "sub"), 0o700))
		ok(t, os.WriteFile(in(b, "sub/x"), nil, 0o600))
		if err := os.Remove(in(a, "sub")); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("rmdir: %v", err)
		}
		ok(t, os.Rename(in(a, "sub"), in(a, "moved")))
		content(t, in(b, "moved/x"), "")
		ok(t, os.Remove(in(b, "moved/x")))
		ok(t, os.Remove(in(a, "moved")))
		if _, err := os.Stat(in(b, "moved")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a directory that was removed: %v", err)
		}
		// Of two that make the same, one does.
		for i := range 20 {
			name := fmt.Sprintf("both%d", i)
			made := make(chan error, 2)
			for _, dir := range []string{a, b} {
				go func() {
					f, err := os.OpenFile(in(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
					if err == nil {
						err = f.Close()
					}
					made <- err
				}()
			}
			if first, second := <-made, <-made; (first == nil) == (second == nil) {
				t.Errorf("O_EXCL on two hosts: %v, %v", first, second)
			}
		}
	})
	h.check()
}

func sharedAttributes(t *testing.T, h *hosts) {
	h.eachOther("file", func(a, b string) {
		ok(t, os.WriteFile(a, []byte("x"), 0o644))
		stat := func() os.FileInfo {
			t.Helper()
			st, err := os.Stat(b)
			ok(t, err)
			return st
		}
		stat()
		ok(t, os.Chmod(a, 0o600))
		if st := stat(); st.Mode().Perm() != 0o600 {
			t.Errorf("mode: %v", st.Mode())
		}
		when := time.Unix(1_000_000_000, 5000)
		ok(t, os.Chtimes(a, when, when))
		if st := stat(); !st.ModTime().Equal(when) {
			t.Errorf("time: %v", st.ModTime())
		}
		get := func() string {
			value := make([]byte, 100)
			n, err := unix.Getxattr(b, "user.x", value)
			if err != nil {
				return err.Error()
			}
			return string(value[:n])
		}
		for _, value := range []string{"one", "two"} {
			ok(t, unix.Setxattr(a, "user.x", []byte(value), 0))
			if got := get(); got != value {
				t.Errorf("attribute: %q, want %q", got, value)
			}
		}
		ok(t, unix.Removexattr(a, "user.x"))
		if got := get(); got != unix.ENODATA.Error() {
			t.Errorf("attribute removed: %q", got)
		}
	})
}

func sharedLocks(t *testing.T, h *hosts) {
	a, b := h.at("locked")
	ok(t, os.WriteFile(a, []byte("x"), 0o600))
	one, two := startPeer(t, "lock", a), startPeer(t, "lock", b)
	again := unix.EAGAIN.Error()
	want := func(p *peer, question, want string) {
		t.Helper()
		if got := p.ask(question); got != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	for range 2 { // as many times as there are hosts
		want(one, "flock-exclusive", "ok")
		want(two, "flock-exclusive", again)
		want(two, "flock-shared", again)
		want(one, "flock-shared", "ok")
		want(two, "flock-shared", "ok")
		want(one, "flock-exclusive", again)
		want(two, "flock-drop", "ok")
		want(one, "flock-exclusive", "ok")

		want(two, "write 100 50", "ok")
		want(one, "write 149 1", again)
		want(one, "write 150 10", "ok")
		want(one, "who 0 120", "process 0, 100+50")
		want(one, "who 0 100", "nobody")
		want(two, "read 100 50", "ok")
		want(one, "read 110 5", "ok")
		want(two, "write 100 50", again)
		want(one, "drop 110 5", "ok")
		want(two, "write 100 50", "ok")
		want(two, "drop 0 0", "ok")
		want(one, "drop 0 0", "ok")
		want(one, "write 0 0", "ok") // all there is, however long
		want(two, "read 4611686018427387904 1", again)
		want(one, "drop 0 0", "ok")

		want(two, "ofd-write 0 10", "ok")
		want(one, "write 5 1", again)
		want(two, "write 5 1", again) // his own process is another owner
		want(two, "ofd-drop 0 10", "ok")
		want(one, "flock-drop", "ok")
		one, two = two, one
	}
}

func sharedLocksEnd(t *testing.T, h *hosts) {
	a, b := h.at("locked")
	ok(t, os.WriteFile(a, []byte("x"), 0o600))
	soon := func(p *peer, question string) {
		t.Helper()
		answers := make(chan string, 1)
		go func() { answers <- p.ask(question) }()
		select {
		case got := <-answers:
			if got != "ok" {
				t.Errorf("%s: %s", question, got)
			}
		case <-time.After(patience):
			t.Fatalf("%s: the lock of what is gone", question)
		}
	}
	for _, l := range []struct{ take, wait string }{
		{"write 0 10", "wait 5 1"}, {"flock-exclusive", "flock-wait"}, {"ofd-write 0 10", "wait 0 1"},
	} {
		one, two := startPeer(t, "lock", a), startPeer(t, "lock", b)
		if got := one.ask(l.take); got != "ok" {
			t.Fatalf("%s: %s", l.take, got)
		}
		answers := make(chan string, 1)
		go func() { answers <- two.ask(l.wait) }()
		select {
		case got := <-answers:
			t.Fatalf("%s: a lock that another has was got: %s", l.wait, got)
		case <-time.After(100 * time.Millisecond):
		}
		one.kill()
		if got := <-answers; got != "ok" {
			t.Errorf("%s: %s", l.wait, got)
		}
		two.kill()
	}
	// A process that closes any descriptor of a file loses its POSIX locks of it, others keep theirs.
	one, two := startPeer(t, "lock", a), startPeer(t, "lock", b)
	for _, q := range []string{"write 0 10", "ofd-write 20 10"} {
		if got := one.ask(q); got != "ok" {
			t.Fatalf("%s: %s", q, got)
		}
	}
	if got := one.ask("open-close"); got != "ok" {
		t.Fatal(got)
	}
	soon(two, "wait 0 10")
	if got := two.ask("write 20 10"); got != unix.EAGAIN.Error() {
		t.Errorf("the lock of an open file description: %s", got)
	}
	// With a host, the locks of its processes go.
	h.one.kill()
	soon(two, "wait 20 10")
}

func sharedOpenFiles(t *testing.T, h *hosts) {
	a, b := h.at("file")
	for i, remove := range []func(string) error{
		os.Remove,
		func(p string) error { return os.Rename(p, p+"-moved") },
		func(p string) error {
			ok(t, os.WriteFile(p+"-new", []byte("new"), 0o600))
			return os.Rename(p+"-new", p)
		},
	} {
		ok(t, os.WriteFile(a, bytes.Repeat([]byte("old"), 3000), 0o600))
		f, err := os.OpenFile(b, os.O_RDWR, 0)
		ok(t, err)
		ok(t, remove(a))
		if _, err := f.WriteAt([]byte("written"), 5000); err != nil {
			t.Errorf("%d: write: %v", i, err)
		}
		got := make([]byte, 9000)
		want := bytes.Repeat([]byte("old"), 3000)
		copy(want[5000:], "written")
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d: read: %v, as it should be: %v", i, err, bytes.Equal(got, want))
		}
		if st, err := f.Stat(); err != nil || st.Size() != 9000 {
			t.Errorf("%d: stat: %v", i, err)
		}
		ok(t, f.Truncate(100))
		ok(t, f.Close())
	}
	content(t, b, "new")
	h.check()
}

func sharedRefused(t *testing.T, h *hosts) {
	refused := func(d *daemon, args ...string) {
		t.Helper()
		cmd := processOf(d, args...)
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "in use") {
			t.Errorf("kmsfs %q: %v, %s", args, err, out)
		}
	}
	h.two.stop()
	refused(h.two, "mount", h.two.Backing, h.two.Dir)
	refused(h.two, "mount", "--ro", h.two.Backing, h.two.Dir)
	refused(h.two, "fsck", h.two.Backing)
	refused(h.two, "fsck", "--repair", h.two.Backing)
	refused(h.two, "reencrypt", h.two.Backing)
	h.two.start()
	if out := h.two.run("info", "--json", h.two.Backing); strings.Count(out, `"shared": true`) != 2 {
		t.Errorf("info does not show two shared mounts: %s", out)
	}
	h.two.stop()
	h.one.stop()
	h.one.flags = nil
	h.one.start()
	refused(h.two, "mount", "--shared", h.two.Backing, h.two.Dir)
	refused(h.two, "mount", h.two.Backing, h.two.Dir)
	h.one.stop()
	// A host that is killed is in nobody's way.
	h.one.flags = []string{"--shared"}
	h.one.start()
	h.one.kill()
	h.two.flags = nil
	h.two.start()
	h.two.stop()
}
