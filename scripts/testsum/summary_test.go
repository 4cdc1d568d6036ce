package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// events writes test events briefly: "action package test output".
func events(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		f := strings.SplitN(l, " ", 4)
		b.WriteString(`{"Action":"` + f[0] + `","Package":"` + f[1] + `"`)
		if len(f) > 2 && f[2] != "" {
			b.WriteString(`,"Test":"` + f[2] + `"`)
		}
		if len(f) > 3 {
			b.WriteString(`,"Output":"` + f[3] + `"`)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func TestTotalsCountWhatRan(t *testing.T) {
	for _, c := range []struct {
		name, in, total, shows string
		ok                     bool
	}{
		{"nothing", "", "0 passed, 0 failed, 0 skipped", "", false},
		{"a package without tests", events("skip p"), "0 passed, 0 failed, 0 skipped", "no tests", false},
		{"one test", events("run p T", "pass p T", "pass p"), "1 passed, 0 failed, 0 skipped", "ok    p", true},
		{"only skipped tests", events("run p T", `output p T     x_test.go:1: no kernel\n`, "skip p T", "pass p"),
			"0 passed, 0 failed, 1 skipped", "skipped: p T: no kernel", false},
		{"a test with subtests", events("run p T", "run p T/a", "pass p T/a", "run p T/b", "skip p T/b", "pass p T", "pass p"),
			"1 passed, 0 failed, 1 skipped", "no reason given", true},
		{"a failed subtest", events("run p T", "run p T/a", `output p T/a it broke\n`, "fail p T/a", "run p T/b", "pass p T/b", "fail p T", "fail p"),
			"1 passed, 1 failed, 0 skipped", "it broke", false},
		{"a parent that fails alone", events("run p T", "run p T/a", "pass p T/a", "fail p T", "fail p"),
			"1 passed, 1 failed, 0 skipped", "FAIL  p", false},
		{"seeds of a fuzz test", events("run p FuzzA", "run p FuzzA/seed#0", "pass p FuzzA/seed#0", "pass p FuzzA", "pass p"),
			"1 passed, 0 failed, 0 skipped", "", true},
		{"a failed seed", events("run p FuzzA", "run p FuzzA/seed#0", "fail p FuzzA/seed#0", "fail p FuzzA", "fail p"),
			"0 passed, 1 failed, 0 skipped", "", false},
		{"a test that is cut off", events("run p T", "pass p T", "run p U", "fail p"), "1 passed, 1 failed, 0 skipped", "", false},
		{"a package that is cut off", events("run p T", "pass p T"), "1 passed, 1 failed, 0 skipped", "FAIL  p", false},
		{"a package that dies after its tests", events("run p T", "pass p T", `output p  exit status 2\n`, "fail p"),
			"1 passed, 1 failed, 0 skipped", "exit status 2", false},
		{"a package that does not build",
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: oops\n"}` + "\n" +
				`{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}` + "\n",
			"0 passed, 1 failed, 0 skipped", "x.go:1: oops", false},
		{"what is no event", "go: no such thing\n", "0 passed, 0 failed, 0 skipped", "go: no such thing", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run(strings.NewReader(c.in), &out, "")
			if err != nil || ok != c.ok {
				t.Errorf("run: %v, %v; want %v", ok, err, c.ok)
			}
			if !strings.HasSuffix("\n"+out.String(), "\n"+c.total+"\n") {
				t.Errorf("want the last line %q:\n%s", c.total, out.String())
			}
			if !strings.Contains(out.String(), c.shows) {
				t.Errorf("want %q in:\n%s", c.shows, out.String())
			}
		})
	}
}

func TestTotalsGoToTheirFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "total")
	var out strings.Builder
	if ok, err := run(strings.NewReader(events("run p T", "pass p T", "pass p")), &out, file); !ok || err != nil {
		t.Fatal(ok, err)
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != "1 passed, 0 failed, 0 skipped\n" || strings.Contains(out.String(), string(b)) {
		t.Errorf("file %q, %v; output %q", b, err, out.String())
	}
}
