// Package scripts tests the scripts that find faults: one that finds none is worth nothing.
package scripts

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fuzzModule is a module of three targets in two packages, of which one fails, with scripts/fuzz in it.
func fuzzModule(t *testing.T) string {
	t.Helper()
	script, err := os.ReadFile("fuzz")
	if err != nil {
		t.Fatal(err)
	}
	target := func(name, check string) string {
		return "func " + name + "(f *testing.F) {\n\tf.Add(7)\n\tf.Fuzz(func(t *testing.T, n int) { " + check + " })\n}\n"
	}
	dir := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":            "module example.test/planted\n\ngo 1.26\n",
		"scripts/fuzz":      string(script),
		"a/fuzz_test.go":    "package a\n\nimport \"testing\"\n\n" + target("FuzzWell", "_ = n") + target("FuzzAlso", "_ = n"),
		"b/c/other_test.go": "package c\n\nimport \"testing\"\n\n" + target("FuzzPlanted", "if n == 7 { t.Fatal(\"planted\") }"),
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runFuzz runs scripts/fuzz in dir; rows are the table's, by target.
func runFuzz(t *testing.T, dir string, args ...string) (rows map[string][]string, out string, code int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "scripts", "fuzz"), args...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	rows = make(map[string][]string)
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 5 && strings.Contains(fields[0], ".Fuzz") {
			rows[fields[0]] = fields[1:]
		}
	}
	return rows, string(b), cmd.ProcessState.ExitCode()
}

func TestFuzzRunsEveryTargetAndFailsWithOne(t *testing.T) {
	dir := fuzzModule(t)
	rows, out, code := runFuzz(t, dir, "20x")
	for target, want := range map[string]string{"a.FuzzWell": "ok", "a.FuzzAlso": "ok", "b/c.FuzzPlanted": "FAILED"} {
		row := rows[target]
		if row == nil || row[3] != want || want == "ok" && row[1] != "20" {
			t.Errorf("%s: %q, want %s", target, row, want)
		}
	}
	if code != 1 || len(rows) != 3 || !strings.Contains(out, "planted") || !strings.Contains(out, "1 targets failed") {
		t.Errorf("exit %d: %s", code, out)
	}
	// One that does not fail, and one that was done before an interruption.
	done := "30x Well Also\na.FuzzWell 17 30 4 ok\n"
	if err := os.WriteFile(filepath.Join(dir, ".build/fuzz/done"), []byte(done), 0o644); err != nil {
		t.Fatal(err)
	}
	rows, out, code = runFuzz(t, dir, "30x", "Well", "Also")
	if code != 0 || len(rows) != 2 || rows["a.FuzzWell"][0] != "17" || rows["a.FuzzAlso"][1] != "30" {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestFuzzRefusesWhatItDoesNotKnow(t *testing.T) {
	dir := fuzzModule(t)
	for _, args := range [][]string{{"ten"}, {"0"}, {"1", "NoSuchTarget"}} {
		if rows, out, code := runFuzz(t, dir, args...); code != 1 || len(rows) != 0 || !strings.Contains(out, args[len(args)-1]) {
			t.Errorf("%q: exit %d: %s", args, code, out)
		}
	}
	// A target that go does not list, here behind a build tag.
	hidden := "//go:build never\n\npackage a\n\nimport \"testing\"\n\nfunc FuzzHidden(f *testing.F) {}\n"
	if err := os.WriteFile(filepath.Join(dir, "a", "hidden_test.go"), []byte(hidden), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, out, code := runFuzz(t, dir, "1x"); code != 1 || !strings.Contains(out, "4 fuzz targets") {
		t.Errorf("exit %d: %s", code, out)
	}
}
