package kms

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"kmsfs/integration/emulator"
	"kmsfs/integration/program"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// The commands of docs/KMS.md work as they stand there, one after the other.
func TestTheCommandsOfTheManualRun(t *testing.T) {
	tools := filepath.Dir(emulator.Tool(t, "aws"))
	bin := program.Path(t)
	manual, err := os.ReadFile("../../docs/KMS.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("set -eux\n")
	blocks := shellBlock.FindAllStringSubmatch(string(manual), -1)
	if len(blocks) < 6 {
		t.Fatalf("%d blocks of commands", len(blocks))
	}
	for _, b := range blocks {
		// A port of the test's own: the manual's may be in use.
		script.WriteString(strings.ReplaceAll(b[1], "4599", freePort(t)))
	}
	// A keystore whose passphrase is checked fast.
	s := newKeystore(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-c", script.String())
	c.Dir = dir
	// Where it fails, the server that it started goes too.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.WaitDelay = 5 * time.Second
	t.Cleanup(func() {
		if c.Process != nil {
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		}
	})
	c.Env = append((&cli{}).environment(keys{}, dir), "PATH="+filepath.Dir(bin)+":"+tools+":"+os.Getenv("PATH"), "KMSFS_KEYSTORE="+s.path, "KMSFS_PASSPHRASE_FILE="+s.passphraseFile())
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`"Plaintext": "aGVsbG8="`, `"eventName":"CreateGrant"`, "none changed, removed or added"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output has no %s:\n%s", want, out)
		}
	}
}
