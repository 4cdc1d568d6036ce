package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// postgresPrograms finds the newest version's directory of programs.
func postgresPrograms(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed, scripts/test does that")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// It refuses to run as root; as root the test becomes the user postgres.
func TestPostgresRunsABenchmarkAndFindsItsChecksumsRight(t *testing.T) {
	t.Parallel()
	bin := postgresPrograms(t)
	if !asUser(t, "postgres") {
		return
	}
	needFuse(t)
	mountedIn(t, heavyWays(), func(t *testing.T, d *daemon) { postgres(t, d, bin) })
}

func postgres(t *testing.T, d *daemon, bin string) {
	data := filepath.Join(d.Dir, "data")
	socket, err := os.MkdirTemp("", "pg") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socket) })
	if len(socket) > 80 {
		t.Skipf("TMPDIR is too long for a socket: %s", socket)
	}
	s := shell{t: t, Dir: socket, Env: []string{"PGHOST=" + socket, "PGUSER=admin", "PGDATABASE=postgres", "PGPORT=5432"}}
	log := filepath.Join(socket, "log")
	running := false
	start := func() {
		t.Helper()
		if _, err := s.try("", filepath.Join(bin, "pg_ctl"), "-D", data, "-w", "-t", "300", "-l", log, "start",
			"-o", "-c listen_addresses= -c unix_socket_directories="+socket+" -c shared_buffers=16MB -c max_wal_size=64MB"); err != nil {
			text, _ := os.ReadFile(log)
			t.Fatalf("%v\n%s", err, text)
		}
		running = true
	}
	stop := func(mode string) {
		t.Helper()
		running = false
		s.run(filepath.Join(bin, "pg_ctl"), "-D", data, "-w", "-t", "300", "-m", mode, "stop")
	}
	t.Cleanup(func() {
		if running { // before the daemon is killed
			_, _ = s.try("", filepath.Join(bin, "pg_ctl"), "-D", data, "-w", "-t", "5", "-m", "immediate", "stop")
		}
	})
	query := func(sql string) string {
		t.Helper()
		return strings.TrimSpace(s.run(filepath.Join(bin, "psql"), "-X", "-A", "-t", "-c", sql))
	}

	s.run(filepath.Join(bin, "initdb"), "--data-checksums", "-A", "trust", "-U", "admin", "--no-locale", "-E", "UTF8", "-D", data)
	start()
	s.run(filepath.Join(bin, "pgbench"), "-i", "-q", "-s", "1")
	out := s.run(filepath.Join(bin, "pgbench"), "-T", "2", "-c", "4", "-j", "2", "-n")
	if !regexp.MustCompile(`number of failed transactions: 0 `).MatchString(out) {
		t.Errorf("pgbench: %s", out)
	}
	done := regexp.MustCompile(`actually processed: (\d+)`).FindStringSubmatch(out)
	if done == nil {
		t.Fatalf("pgbench: %s", out)
	}
	counts := func() string {
		t.Helper()
		return query("select (select count(*) from pgbench_accounts), (select count(*) from pgbench_history)," +
			" (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history)")
	}
	before := counts()
	if !strings.HasPrefix(before, "100000|"+done[1]+"|") {
		t.Errorf("after %s transactions: %s", done[1], before)
	}
	stop("immediate") // as in a crash: the log is replayed
	start()
	if got := counts(); got != before {
		t.Errorf("after a crash of the server %s, want %s", got, before)
	}
	stop("fast")
	check := func() {
		t.Helper()
		if out := s.run(filepath.Join(bin, "pg_checksums"), "--check", "-D", data); !strings.Contains(out, "Bad checksums:  0") {
			t.Errorf("pg_checksums: %s", out)
		}
	}
	check()
	d.remount()
	check()
	start()
	if got := counts(); got != before {
		t.Errorf("after mounting again %s, want %s", got, before)
	}
	query("vacuum full")
	stop("fast")
	check()
	t.Logf("%s transactions", done[1])
}
