package integration

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"
)

// patience is how long tests wait for what must happen, and limit how long a
// process may take for all that it does: a busy machine takes its time.
const (
	patience = 2 * time.Minute
	limit    = 10 * time.Minute
)

// processEnv makes this test program one of the processes below instead: what
// two processes see of each other needs a second one.
const processEnv = "KMSFS_TEST_PROCESS"

// processes do one thing each, with the arguments after "--", and return an exit code.
var processes = map[string]func(args []string) int{}

// runAsProcess tells whether this is such a process, and how it ended.
func runAsProcess() (int, bool) {
	call := processes[os.Getenv(processEnv)]
	if call == nil {
		return 0, false
	}
	flag.Parse()
	return call(flag.Args()), true
}

// testProcess registers a process that runs one test: one that fails must be
// able to, and one that crashes must not take the others along.
func testProcess(name string, call func(t *testing.T, args []string)) {
	processes[name] = func(args []string) int {
		if err := flag.Set("test.v", "true"); err != nil {
			return 1
		}
		testing.Main(func(_, _ string) (bool, error) { return true, nil }, []testing.InternalTest{{
			Name: name,
			F:    func(t *testing.T) { call(t, args) },
		}}, nil, nil)
		return 1 // Main does not return
	}
}

// passed tells whether a process of testProcess ended well, and did not skip itself.
func passed(name string, out []byte, err error) bool {
	return err == nil && bytes.Contains(out, []byte("--- PASS: "+name+" "))
}

// process returns a command that is not started yet.
func process(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, append([]string{"--"}, args...)...)
	cmd.Env = append(os.Environ(), processEnv+"="+name)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}
