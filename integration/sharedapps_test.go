package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing happened for %v", patience)
		}
	}
}

func sleepRandom(r *rand.Rand) { time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond) }

// sharedSqlite has transactions of both hosts change one database, first in turns and
// then at once. Its journal is the rollback journal: its other one needs memory that
// all have in common.
func sharedSqlite(t *testing.T, h *hosts) {
	need(t, "sqlite3")
	s := shell{t: t, Dir: h.one.Dir}
	sql := func(d *daemon, text string) (string, error) {
		return s.try("", "sqlite3", "-batch", "-bail", "-cmd", ".timeout 60000", filepath.Join(d.Dir, "db"), text)
	}
	must := func(d *daemon, text string) string {
		t.Helper()
		out, err := sql(d, text)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	must(h.one, "PRAGMA journal_mode=DELETE; CREATE TABLE account(id INTEGER PRIMARY KEY, n INTEGER); CREATE TABLE log(who INTEGER, i INTEGER, text TEXT);"+
		"INSERT INTO account VALUES(1, 1000), (2, 1000);")
	step := func(d *daemon, who, i int) (string, error) {
		return sql(d, fmt.Sprintf("BEGIN IMMEDIATE; UPDATE account SET n=n-1 WHERE id=%d; UPDATE account SET n=n+1 WHERE id=%d;"+
			"INSERT INTO log VALUES(%d, %d, '%s'); COMMIT; SELECT sum(n) FROM account;", 1+i%2, 2-i%2, who, i, strings.Repeat("x", i*13%900)))
	}
	turns, each := h.rounds(10), h.rounds(25)
	for i := range turns {
		for who, d := range h.both() {
			if out, err := step(d, who, i); err != nil || strings.TrimSpace(out) != "2000" {
				t.Fatalf("turn %d: %q, %v", i, out, err)
			}
		}
	}
	var all sync.WaitGroup
	for who, d := range []*daemon{h.one, h.two, h.one, h.two} {
		all.Go(func() {
			for i := range each {
				if out, err := step(d, 10+who, i); err != nil || strings.TrimSpace(out) != "2000" {
					t.Errorf("host %d: %q, %v", who, out, err)
					return
				}
			}
		})
	}
	all.Wait()
	for _, d := range h.both() {
		if got := must(d, "PRAGMA integrity_check"); got != "ok" {
			t.Errorf("integrity: %s", got)
		}
		want := fmt.Sprintf("%d|2000", 2*turns+4*each)
		if got := must(d, "SELECT (SELECT count(*) FROM log), sum(n) FROM account"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	h.check()
}

// sharedGit has both hosts commit to one repository, in turns and at once.
func sharedGit(t *testing.T, h *hosts) {
	need(t, "git")
	env := []string{
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=gc.auto", "GIT_CONFIG_VALUE_0=0",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@localhost", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@localhost",
	}
	on := func(d *daemon) shell { return shell{t: t, Dir: filepath.Join(d.Dir, "repo"), Env: env} }
	ok(t, os.Mkdir(filepath.Join(h.one.Dir, "repo"), 0o755))
	on(h.one).run("git", "init", "-q")
	commit := func(d *daemon, name string) error {
		ok(t, os.WriteFile(filepath.Join(d.Dir, "repo", name), []byte(name), 0o644))
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			_, err := on(d).try("", "git", "add", name)
			if err == nil {
				_, err = on(d).try("", "git", "commit", "-q", "-m", name, "--", name)
			}
			// Git itself refuses while another has its lock files, or moved the branch.
			if err == nil || time.Now().After(deadline) ||
				!strings.Contains(err.Error(), ".lock") && !strings.Contains(err.Error(), "cannot lock ref") && !strings.Contains(err.Error(), "unable to") {
				return err
			}
		}
	}
	turns, each := h.rounds(4), h.rounds(8)
	for i := range turns {
		for who, d := range h.both() {
			if err := commit(d, fmt.Sprintf("turn%d-%d", who, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all sync.WaitGroup
	for who, d := range h.both() {
		all.Go(func() {
			for i := range each {
				if err := commit(d, fmt.Sprintf("both%d-%d", who, i)); err != nil {
					t.Errorf("host %d: %v", who, err)
					return
				}
			}
		})
	}
	all.Wait()
	commits := strconv.Itoa(2*turns + 2*each)
	for _, d := range h.both() {
		s := on(d)
		s.run("git", "fsck", "--full", "--strict")
		if got := strings.TrimSpace(s.run("git", "rev-list", "--count", "HEAD")); got != commits {
			t.Errorf("%s commits, want %s", got, commits)
		}
		if got := strings.Count(s.run("git", "ls-tree", "--name-only", "HEAD"), "\n"); strconv.Itoa(got) != commits {
			t.Errorf("%d files", got)
		}
		if got := s.run("git", "status", "--porcelain"); got != "" {
			t.Errorf("not clean: %s", got)
		}
	}
	h.check()
}
