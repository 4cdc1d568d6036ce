package main

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestWhatRootStartsHasOnlyThePrivilegesOfAMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user has nothing to give up; root runs this")
	}
	before := status(t, "/proc/thread-self/status")
	c := exec.Command("cat", "/proc/self/status")
	var out bytes.Buffer
	c.Stdout = &out
	if err := startWithLess(c); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	got := fields(out.String())
	var want uint64
	for _, c := range kept {
		want |= 1 << c
	}
	full, err := strconv.ParseUint(before["CapBnd"], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	want &= full
	for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
		if has, err := strconv.ParseUint(got[set], 16, 64); err != nil || has != want {
			t.Errorf("%s is %s, want %x", set, got[set], want)
		}
	}
	if got["CapInh"] != "0000000000000000" || got["NoNewPrivs"] != "1" {
		t.Errorf("CapInh %s, NoNewPrivs %s", got["CapInh"], got["NoNewPrivs"])
	}
	// This process keeps what it has.
	if now := status(t, "/proc/thread-self/status"); now["CapBnd"] != before["CapBnd"] || now["NoNewPrivs"] != before["NoNewPrivs"] {
		t.Errorf("this process has CapBnd %s and NoNewPrivs %s", now["CapBnd"], now["NoNewPrivs"])
	}
}

// fields are the lines of a file such as /proc/self/status.
func fields(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, ":"); ok {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}

func status(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fields(string(b))
}
