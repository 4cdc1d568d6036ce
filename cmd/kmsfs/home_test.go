package main

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheHomeDirectoryIsKnownWithoutTheEnvironment(t *testing.T) {
	own, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 4_000_000_001 // has no entry in any passwd
	for _, c := range []struct {
		env  string
		euid int
		want string
	}{{"/set", os.Geteuid(), "/set"}, {"", os.Geteuid(), own.HomeDir}, {"", nobody, ""}} {
		a := &app{euid: c.euid, getenv: func(name string) string {
			if name == "HOME" {
				return c.env
			}
			return ""
		}}
		if got := a.home(); got != c.want {
			t.Errorf("HOME=%q, user %d: home %q, want %q", c.env, c.euid, got, c.want)
		}
		path, err := a.keystorePath()
		_, stateErr := a.stateDir()
		if c.want == "" {
			for _, err := range []error{err, stateErr} {
				if err == nil || !strings.Contains(err.Error(), "no home directory") {
					t.Errorf("without a home: %v", err)
				}
			}
		} else if err != nil || stateErr != nil || path != filepath.Join(c.want, ".local/share/kmsfs/keystore.json") {
			t.Errorf("keystore %q, %v; state: %v", path, err, stateErr)
		}
	}
}
