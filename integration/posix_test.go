package integration

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// notYet are the tests that must fail, or skip themselves, because an operation
// is missing. One that passes fails the run, so that this table stays true.
var notYet = map[string]string{
	"FcntlFlockLocksFile": "expects that two locks of the same process exclude each other, which POSIX locks do not: it fails on ext4 too",
	"XAttrLarge":          "its value is larger than the backing store takes, sealed: ext4 has 4 KiB for all attributes of a file",
}

func init() {
	testProcess("posix", func(t *testing.T, args []string) { posixtest.All[args[0]](t, args[1]) })
}

// posix runs all of the tests on a mount, each in a directory and in a process
// of its own.
func posix(t *testing.T, mountFlags ...string) {
	t.Parallel()
	d := newDaemon(t)
	d.start(mountFlags...)
	for _, name := range slices.Sorted(maps.Keys(posixtest.All)) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(d.Dir, name)
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			out, err := process(t, "posix", name, dir).CombinedOutput()
			ok := passed("posix", out, err)
			switch why, missing := notYet[name]; {
			case missing && ok:
				t.Errorf("passes although it is listed as failing (%s): remove it from the table", why)
			case missing:
				t.Skipf("%s:\n%s", why, out)
			case !ok: // or skips itself
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	for name := range notYet {
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
	for name, flags := range posixVariants {
		t.Run(name, func(t *testing.T) { posix(t, strings.Fields(flags)...) })
	}
	t.Run("others let in", func(t *testing.T) { posix(t, "--allow-other") })
}

func TestPosixOperationsOnAMountOfAUser(t *testing.T) {
	if !asUser(t, "nobody") {
		return
	}
	needFuse(t)
	for name, flags := range posixVariants {
		t.Run(name, func(t *testing.T) { posix(t, strings.Fields(flags)...) })
	}
}

var posixVariants = map[string]string{
	"default":      "",
	"no writeback": "--options=writeback=off",
	"keep open":    "--options=open",
}
