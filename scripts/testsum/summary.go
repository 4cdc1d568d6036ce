package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build-output
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

type counts struct{ passed, failed, skipped int }

// summary gathers what came of the packages that are being tested.
type summary struct {
	out      io.Writer
	packages map[string]*pkg
	builds   map[string]*strings.Builder // output of the compiler, by import path
	total    counts
	skips    []string
}

// pkg is a package that is being tested.
type pkg struct {
	tests  map[string]*test
	order  []*test // as they began
	output strings.Builder
	done   bool
}

// test is a test or a subtest.
type test struct {
	name   string
	parent bool   // has subtests that count in its place
	result string // pass, fail, skip; "" while it runs
	output strings.Builder
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, packages: make(map[string]*pkg), builds: make(map[string]*strings.Builder)}
}

// line takes one line of input. What is no event, such as a message of the go command, is passed on.
func (s *summary) line(b []byte) {
	var e event
	if !bytes.HasPrefix(b, []byte("{")) || json.Unmarshal(b, &e) != nil || e.Action == "" {
		s.printf("%s", b)
		return
	}
	if e.Action == "build-output" {
		if s.builds[e.ImportPath] == nil {
			s.builds[e.ImportPath] = new(strings.Builder)
		}
		s.builds[e.ImportPath].WriteString(e.Output)
		return
	}
	if e.Package == "" {
		return
	}
	p := s.packages[e.Package]
	if p == nil {
		p = &pkg{tests: make(map[string]*test)}
		s.packages[e.Package] = p
	}
	if e.Test != "" {
		p.event(&e)
		return
	}
	switch e.Action {
	case "output":
		p.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		s.end(p, &e)
	}
}

// event takes an event of one of the package's tests.
func (p *pkg) event(e *event) {
	t := p.tests[e.Test]
	if t == nil {
		t = &test{name: e.Test}
		p.tests[e.Test] = t
		p.order = append(p.order, t)
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 && p.tests[e.Test[:i]] != nil {
			p.tests[e.Test[:i]].parent = true
		}
	}
	switch e.Action {
	case "output":
		t.output.WriteString(e.Output)
	case "pass", "fail", "skip":
		t.result = e.Action
	}
}

// end prints a package that is done and counts its tests.
func (s *summary) end(p *pkg, e *event) {
	p.done = true
	c := p.count(e.Action == "fail")
	s.total.passed += c.passed
	s.total.failed += c.failed
	s.total.skipped += c.skipped
	switch {
	case e.Action == "fail":
		s.printFailure(p, e)
		s.printf("FAIL  %-36s %6.1f s  %d passed, %d failed, %d skipped\n", e.Package, e.Elapsed, c.passed, c.failed, c.skipped)
	case c == counts{}:
		s.printf("–     %-36s           no tests\n", e.Package)
	default:
		s.printf("ok    %-36s %6.1f s  %d passed, %d skipped\n", e.Package, e.Elapsed, c.passed, c.skipped)
	}
	for _, t := range p.order {
		if t.result == "skip" {
			s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", e.Package, t.name, t.reason()))
		}
	}
}

// count gives the tests of a package by result. In one that failed, a test without a result was cut off.
func (p *pkg) count(failed bool) counts {
	var c counts
	for _, t := range p.order {
		if strings.HasPrefix(t.name, "Fuzz") && strings.Contains(t.name, "/") {
			continue // a seed
		}
		switch {
		case t.result == "" && failed, t.result == "fail" && !p.failedBelow(t):
			c.failed++
		case t.parent && !strings.HasPrefix(t.name, "Fuzz"), t.result == "fail":
		case t.result == "pass":
			c.passed++
		case t.result == "skip":
			c.skipped++
		}
	}
	if failed && c.failed == 0 {
		c.failed++
	}
	return c
}

// failedBelow tells whether a subtest of t that counts failed in its place.
func (p *pkg) failedBelow(t *test) bool {
	return !strings.HasPrefix(t.name, "Fuzz") && slices.ContainsFunc(p.order, func(u *test) bool {
		return u.result != "pass" && u.result != "skip" && strings.HasPrefix(u.name, t.name+"/")
	})
}

func (s *summary) printFailure(p *pkg, e *event) {
	if b := s.builds[e.FailedBuild]; b != nil {
		s.printf("%s", b)
	}
	for _, t := range p.order {
		if t.result == "fail" || t.result == "" {
			s.printf("%s", t.output.String())
		}
	}
	s.printf("%s", p.output.String())
}

var logLine = regexp.MustCompile(`(?m)^\s+[^\s:]+\.go:\d+: (.*)$`)

// reason is what a skipped test said last.
func (t *test) reason() string {
	m := logLine.FindAllStringSubmatch(t.output.String(), -1)
	if len(m) == 0 {
		return "no reason given"
	}
	return m[len(m)-1][1]
}

// finish prints what remains to be said and returns the totals.
func (s *summary) finish() counts {
	for name, p := range s.packages {
		if !p.done {
			s.end(p, &event{Action: "fail", Package: name})
		}
	}
	slices.Sort(s.skips)
	for _, skip := range s.skips {
		s.printf("skipped: %s\n", skip)
	}
	return s.total
}

// printf drops write errors: the exit code speaks as well.
func (s *summary) printf(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }
