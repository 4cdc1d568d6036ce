package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// remount stops the daemon and starts it again: nothing is cached then.
func (d *daemon) remount() {
	d.t.Helper()
	d.stop()
	d.start()
}

func TestSqliteKeepsItsDatabaseWholeWhenAClientIsKilled(t *testing.T) {
	t.Parallel()
	need(t, "sqlite3")
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		for _, journal := range []string{"delete", "wal"} {
			sqliteKilled(t, d, journal)
		}
	})
}

func sqliteKilled(t *testing.T, d *daemon, journal string) {
	s := shell{t: t, Dir: d.Dir}
	db := filepath.Join(d.Dir, journal+".db")
	ask := func(sql string) string {
		t.Helper()
		return strings.TrimSpace(s.run("sqlite3", "-batch", "-bail", "-cmd", ".timeout 10000", db, sql))
	}
	if got := ask("pragma journal_mode=" + journal + "; create table t (n integer primary key, data blob)"); got != journal {
		t.Fatalf("journal mode %q, want %q", got, journal)
	}
	ask("begin; with recursive c(n) as (select 1 union all select n+1 from c where n<3000) " +
		"insert into t select n, randomblob(n%900) from c; commit")
	killed, next := 0, 3001
	for range 3 {
		// Each insert is a transaction; its number is told once it is committed.
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		cmd := s.command(ctx, "sqlite3", "-batch", "-bail", "-cmd", ".timeout 10000", db)
		var script strings.Builder
		for n := next; n < next+20000; n++ {
			fmt.Fprintf(&script, "insert into t values (%d, randomblob(%d)); select %d;\n", n, n%3000, n)
		}
		cmd.Stdin = strings.NewReader(script.String())
		told := filepath.Join(t.TempDir(), "told")
		out, err := os.Create(told)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "a row that was committed", func() bool { st, err := os.Stat(told); return err == nil && st.Size() > 0 })
		time.Sleep(300 * time.Millisecond)
		_ = cmd.Process.Kill()
		if cmd.Wait() != nil {
			killed++
		}
		out.Close()
		b, err := os.ReadFile(told)
		if err != nil {
			t.Fatal(err)
		}
		last := next - 1
		for line := range strings.Lines(string(b)) {
			if n, err := strconv.Atoi(strings.TrimSuffix(line, "\n")); err == nil && strings.HasSuffix(line, "\n") {
				last = n
			}
		}
		if got := ask("pragma integrity_check"); got != "ok" {
			t.Fatalf("%s: after a kill: %s", journal, got)
		}
		count, err := strconv.Atoi(ask("select count(*) from t"))
		if err != nil || count < last || count > last+1 {
			t.Fatalf("%s: %d rows, %v, after %d were committed", journal, count, err, last)
		}
		next = count + 1
	}
	ask("begin; update t set data = randomblob(700) where n % 3 = 0; delete from t where n % 5 = 0; commit; vacuum")
	sum := "select count(*), sum(n), sum(length(data)), hex(max(data)) from t"
	before := ask(sum)
	d.remount()
	if got := ask("pragma integrity_check"); got != "ok" {
		t.Errorf("%s: after mounting again: %s", journal, got)
	}
	if got := ask(sum); got != before {
		t.Errorf("%s: after mounting again %.100s, want %.100s", journal, got, before)
	}
	t.Logf("%s: %d rows committed one by one, client killed %d times", journal, next-3001, killed)
	if killed == 0 || next == 3001 {
		t.Errorf("%s: no client was killed at work", journal)
	}
}

// goSource is a directory of Go's own source: many small files.
func goSource(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src", path)
}

func TestGitRepositoriesAreWhole(t *testing.T) {
	t.Parallel()
	need(t, "git")
	asRootAndAsUser(t, heavyWays(), func(t *testing.T, d *daemon) {
		s := shell{t: t, Dir: d.Dir, Env: []string{
			"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@localhost", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@localhost",
		}}
		clean := func(repo string) {
			t.Helper()
			if got := s.run("git", "-C", repo, "status", "--porcelain"); got != "" {
				t.Errorf("%s is not clean: %.500s", repo, got)
			}
			s.run("git", "-C", repo, "fsck", "--full", "--strict")
		}
		s.run("git", "init", "-q", "one")
		s.run("cp", "-r", goSource(t, "go/types"), goSource(t, "encoding"), "one/")
		s.run("git", "-C", "one", "add", "-A")
		s.run("git", "-C", "one", "commit", "-q", "-m", "first")
		clean("one")
		objects, err := filepath.Glob(filepath.Join(d.Dir, "one/.git/objects/??/*"))
		if err != nil || len(objects) < 200 {
			t.Fatalf("%d objects, %v", len(objects), err)
		}
		if st, err := os.Stat(objects[0]); err != nil || st.Mode().Perm() != 0o444 {
			t.Errorf("an object: %v, %v, want mode 0444", st.Mode(), err)
		}
		s.run("git", "clone", "-q", "one", "two")                 // by hard links
		s.run("git", "clone", "-q", "--no-local", "one", "three") // by a pack
		d.remount()
		for _, repo := range []string{"one", "two", "three"} {
			clean(repo)
		}
		s.run("git", "-C", "two", "mv", "encoding", "moved")
		s.run("git", "-C", "two", "commit", "-q", "-m", "second")
		s.run("git", "-C", "two", "gc", "-q", "--prune=now")
		s.run("git", "-C", "one", "pull", "-q", "--ff-only", "../two", "HEAD")
		s.run("git", "-C", "one", "gc", "-q", "--prune=now")
		d.remount()
		for _, repo := range []string{"one", "two"} {
			clean(repo)
		}
		s.run("diff", "-r", goSource(t, "encoding"), "one/moved")
	})
}

// Building the standard library into an empty cache is what takes long.
func TestAGoModuleIsBuiltAndTestedWithItsCacheOnTheMount(t *testing.T) {
	t.Parallel()
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	mountedIn(t, heavyWays(), goModule)
}

func goModule(t *testing.T, d *daemon) {
	module := filepath.Join(d.Dir, "module")
	for name, content := range map[string]string{
		"go.mod":        "module example\n\ngo 1.21\n",
		"main.go":       "package main\n\nimport (\n\t\"os\"\n\n\t\"example/sum\"\n)\n\nfunc main() { os.Stdout.WriteString(sum.Of(2, 3)) }\n",
		"sum/sum.go":    "package sum\n\nimport \"strconv\"\n\nfunc Of(a, b int) string { return strconv.Itoa(a + b) }\n",
		"sum/s_test.go": "package sum\n\nimport \"testing\"\n\nfunc TestOf(t *testing.T) {\n\tif Of(1, 2) != \"3\" {\n\t\tt.Fatal(Of(1, 2))\n\t}\n}\n",
	} {
		name = filepath.Join(module, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// The work directory too: the test program is run from the mount.
	work := filepath.Join(d.Dir, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	s := shell{t: t, Dir: module, Env: []string{
		"GOFLAGS=-mod=mod", "GOPROXY=off", "CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOWORK=off",
		"GOCACHE=" + filepath.Join(d.Dir, "cache"), "GOTMPDIR=" + work,
	}}
	build := func() {
		t.Helper()
		s.run("go", "build", "-o", "program", ".")
		if got := s.run("./program"); got != "5" {
			t.Errorf("the program says %q", got)
		}
	}
	build()
	if got := s.run("go", "test", "-vet=off", "./sum"); !strings.HasPrefix(got, "ok") {
		t.Errorf("go test: %s", got)
	}
	d.remount()
	build()
	// What is in the cache is found by the hashes of its sources.
	if got := s.run("go", "test", "-vet=off", "./sum"); !strings.Contains(got, "(cached)") {
		t.Errorf("go test after mounting again: %s", got)
	}
}
