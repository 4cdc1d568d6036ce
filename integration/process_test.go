package integration

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"
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

// process returns a command that is not started yet.
func process(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, self, append([]string{"--"}, args...)...)
	cmd.Env = append(os.Environ(), processEnv+"="+name)
	cmd.WaitDelay = 2 * time.Second
	return cmd
}
