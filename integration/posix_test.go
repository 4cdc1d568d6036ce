package integration

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// exceptions are the tests that must fail, or skip themselves. One that passes
// fails the run, so that this table stays true.
var exceptions = map[string]string{
	"FcntlFlockLocksFile": "expects that two locks of the same process exclude each other, which POSIX locks do not: it fails on ext4 too",
	"XAttrLarge":          "its value is larger than the backing store takes, sealed: ext4 has 4 KiB for all attributes of a file",
}

func init() {
	testProcess("posix", func(t *testing.T, args []string) { posixtest.All[args[0]](t, args[1]) })
}

// posix runs all of the tests on a mount, each in a directory and in a process
// of its own.
func posix(t *testing.T, w way) {
	t.Parallel()
	d := newDaemon(t)
	d.flags = w.flags
	d.start()
	exceptions := maps.Clone(exceptions)
	if d.lacksXattrs() {
		exceptions["XAttr"] = "there are no attributes"
	}
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(d.Dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			out, err := process(t, "posix", name, dir).CombinedOutput()
			ok := passed("posix", out, err)
			switch why, missing := exceptions[name]; {
			case missing && ok:
				t.Errorf("passes although it is listed as failing (%s): remove it from the table", why)
			case missing:
				t.Skipf("%s:\n%s", why, out)
			case !ok: // or skips itself
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	for name := range exceptions {
		if posixtest.All[name] == nil {
			t.Errorf("no test %s", name)
		}
	}
	d.stop()
}

func TestPosixOperationsOnAMountOfRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only for root; TestPosixOperationsOnAMountOfAUser is for others")
	}
	for _, w := range append(slices.Clone(ways), way{"others let in", []string{"--allow-other"}}) {
		t.Run(w.name, func(t *testing.T) { posix(t, w) })
	}
}

func TestPosixOperationsOnAMountOfAUser(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) { posix(t, w) })
	}
}
