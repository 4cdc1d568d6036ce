package integration

import (
	"flag"
	"os"
	"slices"
	"testing"
)

// way is a way to mount.
type way struct {
	name  string
	flags []string
}

// ways are those that change what the kernel asks for, or when.
var ways = []way{
	{"default", nil},
	{"writeback off", []string{"--options=writeback=off"}},
	{"open", []string{"--options=open"}},
	{"no attributes", []string{"--options=noxattr"}},
	{"ACLs", []string{"--options=acl"}},
}

var everyWay = flag.Bool("ways.every", false, "run programs with every way to mount as root and as a user, also those that take long")

// lightWays are the ways for programs that are done soon: as root all, where
// --allow-other puts ACLs on already; as a user the one that is left.
func lightWays() []way {
	switch {
	case *everyWay:
		return ways
	case os.Geteuid() == 0:
		return ways[:len(ways)-1]
	}
	return []way{ways[0], ways[len(ways)-1]}
}

// heavyWays are the ways for programs that take long.
func heavyWays() []way {
	if *everyWay {
		return ways
	}
	return ways[:1]
}

// lacksXattrs tells whether mounts of this daemon are without extended attributes.
func (d *daemon) lacksXattrs() bool { return slices.Contains(d.flags, "--options=noxattr") }

// mountedIn calls with a mount for each of the ways.
func mountedIn(t *testing.T, ways []way, call func(t *testing.T, d *daemon), flags ...string) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			d := newDaemon(t)
			d.flags = slices.Concat(flags, w.flags)
			d.start()
			call(t, d)
			d.stop()
		})
	}
}

// asRootAndAsUser runs a test as root, on a mount that lets others in, and as an
// ordinary user on a mount of his own.
func asRootAndAsUser(t *testing.T, ways []way, call func(t *testing.T, d *daemon)) {
	t.Helper()
	if !asUser(t, "nobody") {
		t.Run("as root", func(t *testing.T) { mountedIn(t, ways, call, "--allow-other") })
		return
	}
	needFuse(t)
	mountedIn(t, ways, call)
}
