package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/integration/program"
)

// TestMain makes this program the daemon that the program under test starts.
func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) == "" {
		os.Exit(program.Main(m))
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := daemon(ctx, os.Args[2:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// smallTree makes a few files, one of them empty.
func smallTree(t *testing.T) (dir string, files int) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"a", "b/c", "b/d", "b/e/f", "empty"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var content []byte
		if name != "empty" {
			content = bytes.Repeat([]byte(name), 1000)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		files++
	}
	return dir, files
}

func TestKMSCallsOfKmsfsAsASubject(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no /dev/fuse here; a machine with the fuse module runs this: %v", err)
	}
	tree, files := smallTree(t)
	r := measured(t, "-workloads", "untar,tarc", "-subjects", "kmsfs-file,kmsfs-file-slow,kmsfs-volume,kmsfs-volume-slow,native",
		"-rounds", "2", "-delay", "2ms", "-tree", tree)
	if want := 2 * 5; len(r.Results) != want || r.Tree.Files != files {
		t.Fatalf("%d results and %d files, want %d and %d", len(r.Results), r.Tree.Files, want, files)
	}
	for _, x := range r.Results {
		if len(x.Seconds) != 2 || x.Min <= 0 || x.Min > x.Median || x.Median > x.Max {
			t.Errorf("%s on %s: %v, median %v", x.Workload, x.Subject, x.Seconds, x.Median)
		}
		if strings.HasPrefix(x.Subject, "kmsfs") != (x.Usage[0].Peak > 0) {
			t.Errorf("%s on %s: usage %+v", x.Workload, x.Subject, x.Usage)
		}
		wantCalls(t, x, files)
	}
}

func TestEveryWorkloadOfMountsRuns(t *testing.T) {
	var names []string
	for _, w := range workloads {
		if w.kind == mounts {
			names = append(names, w.name)
		}
	}
	measuredOnMounts(t, names, []string{"kmsfs-file", "native"})
}

func TestPeersAreMeasured(t *testing.T) {
	loopback := filepath.Join(t.TempDir(), "loopback")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", loopback, "github.com/hanwen/go-fuse/v2/example/loopback").CombinedOutput(); err != nil {
		t.Fatalf("build loopback: %v\n%s", err, out)
	}
	subjects := []string{"kmsfs-file"}
	for _, p := range peers(loopback, "") {
		if !p.slow {
			subjects = append(subjects, p.name)
		}
	}
	measuredOnMounts(t, []string{"create", "tarc"}, subjects, "-loopback", loopback)
}

func TestRequestsAreCounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can trace; root runs this")
	}
	tree, files := smallTree(t)
	count := func(args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		args = append(args, "-requests", "-subjects", "kmsfs-volume,native", "-tree", tree, "-backing", backing(t))
		if err := run(t.Context(), args, &stdout, &stderr); err != nil {
			t.Fatalf("%v\n%s", err, &stderr)
		}
		return strings.Join(strings.Fields(stdout.String()), " ")
	}
	operations := count()
	for _, want := range []string{
		"cold open, read, close kmsfs-volume 2 LOOKUP READ", "warm open, read, close kmsfs-volume 0",
		"stat of a name that is not there kmsfs-volume 1 LOOKUP", "mkdir kmsfs-volume 2 LOOKUP MKDIR",
	} {
		if !strings.Contains(operations, want) {
			t.Errorf("%q is not in %s", want, operations)
		}
	}
	if want, got := fmt.Sprintf("UNLINK×%d", files), count("-workloads", "rm"); !strings.HasPrefix(got, "rm kmsfs-volume") || !strings.Contains(got, want) {
		t.Errorf("rm of %d files: %s, want %s", files, got, want)
	}
}

// measuredOnMounts measures little of each workload on each subject.
func measuredOnMounts(t *testing.T, workloads, subjects []string, args ...string) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no /dev/fuse here; a machine with the fuse module runs this: %v", err)
	}
	tree, _ := smallTree(t)
	r := measured(t, append(args, "-workloads", strings.Join(workloads, ","), "-subjects", strings.Join(subjects, ","),
		"-rounds", "1", "-scale", "0.002", "-tree", tree)...)
	if want := len(workloads) * len(subjects); len(r.Results) != want {
		t.Fatalf("%d results, want %d", len(r.Results), want)
	}
	for _, x := range r.Results {
		if len(x.Seconds) != 1 || x.Min <= 0 || (x.Subject != "native") != (x.Usage[0].Peak > 0) {
			t.Errorf("%s on %s: %v, %+v", x.Workload, x.Subject, x.Seconds, x.Usage)
		}
	}
}

// wantCalls checks the calls to the KMS of each round.
func wantCalls(t *testing.T, x result, files int) {
	t.Helper()
	decrypts, generated := 1, 0 // the volume key
	if strings.HasPrefix(x.Subject, "kmsfs-file") {
		switch x.Workload {
		case "untar":
			generated = files
		case "tarc":
			decrypts += files - 1 // the empty one needs no key
		}
	}
	if x.Subject == "native" {
		decrypts = 0
	}
	for round, u := range x.Usage {
		if u.Calls["Decrypt"] != decrypts || u.Calls["GenerateDataKey"] < generated || generated == 0 && u.Calls["GenerateDataKey"] > 0 || u.Calls["Encrypt"] != 0 {
			t.Errorf("%s on %s, round %d: KMS calls %v, want %d Decrypt and at least %d GenerateDataKey",
				x.Workload, x.Subject, round, u.Calls, decrypts, generated)
		}
	}
}

// backing is a directory on tmpfs where there is one. Elsewhere the benchmark drops the caches of the whole machine, and
// tests of other packages count at that time what the kernel has cached.
func backing(t *testing.T) string {
	t.Helper()
	if kind, err := fileSystem(memory); err != nil || kind != "tmpfs" {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "kmsfs-test.")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// measured runs the benchmark with these arguments and returns the results that it writes as JSON.
func measured(t *testing.T, args ...string) (r results) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "results.json")
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), append(args, "-backing", backing(t), "-json", out), &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	t.Logf("%s", &stdout)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryWorkloadOfCommandsRunsOnEverySubject(t *testing.T) {
	r := measured(t, "-workloads", "encrypt-signed,decrypt-signed,encrypt,decrypt", "-rounds", "1", "-size", "1",
		"-kmsfs", program.Path(t), "-official", emulator.Tool(t, "aws-encryption-cli"))
	if want := 4 * 3; len(r.Results) != want || r.Size != 1<<20 {
		t.Fatalf("%d results of %d bytes, want %d", len(r.Results), r.Size, want)
	}
	for _, x := range r.Results {
		if len(x.Seconds) != 1 || x.Usage[0].Peak <= 0 || x.Usage[0].CPU <= 0 || x.Rate <= 0 {
			t.Errorf("%s on %s: %v s, %v MB/s, %+v", x.Workload, x.Subject, x.Seconds, x.Rate, x.Usage)
		}
		if strings.HasPrefix(x.Subject, "official") != (x.Against == "kmsfs-command") {
			t.Errorf("%s on %s is against %q", x.Workload, x.Subject, x.Against)
		}
	}
}

func TestGrowthIsMeasuredWithEachNumberOfFiles(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no /dev/fuse here; a machine with the fuse module runs this: %v", err)
	}
	out := filepath.Join(t.TempDir(), "growth.json")
	var stdout, stderr bytes.Buffer
	// Other tests need what the kernel caches: it is not made to forget.
	if err := run(t.Context(), []string{
		"-files", "20,200", "-forget=false", "-subjects", "kmsfs-volume,native", "-rounds", "2", "-backing", backing(t), "-json", out,
	}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var g growth
	if b, err := os.ReadFile(out); err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.Points) != 2*2*2 || len(g.Sparse) != 2*2 || len(g.Clients) != 2*2*2 {
		t.Fatalf("%d points, %d sparse files, %d crowds", len(g.Points), len(g.Sparse), len(g.Clients))
	}
	for _, p := range g.Points {
		if p.Create <= 0 || p.Lookup <= 0 || p.Readdir <= 0 || p.Unlink <= 0 || (p.Known > 0) != (p.Subject != "native") || p.Known < p.Mounted {
			t.Errorf("%+v", p)
		}
	}
	for _, f := range g.Sparse {
		if f.Write <= 0 || f.Stored <= 0 || f.Stored > 1024 {
			t.Errorf("%+v", f)
		}
	}
	for _, c := range g.Clients {
		if c.PerSecond <= 0 {
			t.Errorf("%+v", c)
		}
	}
}

func TestWhatIsNotThereIsRefusedByName(t *testing.T) {
	for _, c := range []struct{ arg, value, says string }{
		{"-workloads", "untar,nothing", `no workload is called "nothing"`},
		{"-subjects", "native,nothing", `no subject is called "nothing"`},
		{"-rounds", "0", "0 rounds"},
		{"-size", "0", "a file of 0 MiB"},
		{"-scale", "0", "a scale of 0"},
		{"-files", "10,0", `"0" files`},
		{"-files", "many", `"many" files`},
		{"-subjects", "official", `no subject is called "official"`}, // without its flag
	} {
		var out bytes.Buffer
		if _, _, err := parse([]string{c.arg, c.value}, &out, &out); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v", c.arg, c.value, err)
		}
	}
}

func TestChosenOnesComeInTheOrderOfTheList(t *testing.T) {
	var out bytes.Buffer
	s, done, err := parse([]string{"-subjects", "native,kmsfs-file", "-workloads", "tarc"}, &out, &out)
	if err != nil || done || len(s.subjects) != 2 || s.subjects[0].name != "kmsfs-file" || len(s.workloads) != 1 {
		t.Errorf("%v, %v, %+v", err, done, s)
	}
}

func TestMediansAndRatios(t *testing.T) {
	s := settings{workloads: []workload{{name: "w", kind: mounts}}, subjects: []subject{{name: "a", kind: mounts}, {name: "other", kind: commands}, {name: "b", kind: mounts}, {name: "c", kind: mounts, against: "b"}}}
	r := newResults(s, input{}, t.TempDir())
	for subject, seconds := range map[string][]float64{"a": {3, 1, 2}, "b": {4, 4, 100}, "c": {8, 1, 9}} {
		for _, v := range seconds {
			r.add("w", subject, v, usage{})
		}
	}
	r.finish()
	for subject, want := range map[string]result{
		"a": {Median: 2, Min: 1, Max: 3},
		"b": {Median: 4, Min: 4, Max: 100, Against: "a", Ratio: 2},
		"c": {Median: 8, Min: 1, Max: 9, Against: "b", Ratio: 2},
	} {
		got := r.find("w", subject)
		if got.Median != want.Median || got.Min != want.Min || got.Max != want.Max || got.Against != want.Against || got.Ratio != want.Ratio {
			t.Errorf("%s: %+v, want %+v", subject, got, want)
		}
	}
	if m := median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("median of 1 to 4: %v", m)
	}
}
