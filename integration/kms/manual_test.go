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

// The commands of the manuals work as they stand there, one after the other.
func TestTheCommandsOfTheManualsRun(t *testing.T) {
	for manual, wants := range map[string][]string{
		"KMS.md":       {`"Plaintext": "aGVsbG8="`, `"eventName":"CreateGrant"`, "none changed, removed or added"},
		"ENVELOPES.md": {"Dear all", "refused: exit code 25", "+ cmp letter ours.dec"},
	} {
		t.Run(manual, func(t *testing.T) {
			out := runManual(t, filepath.Join("../../docs", manual))
			for _, want := range wants {
				if !strings.Contains(out, want) {
					t.Errorf("the output has no %s:\n%s", want, out)
				}
			}
		})
	}
}

// runManual runs the commands of a manual, and returns what they print.
func runManual(t *testing.T, path string) string {
	t.Helper()
	tools := filepath.Dir(emulator.Tool(t, "aws"))
	bin := program.Path(t)
	manual, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var script strings.Builder
	script.WriteString("set -eux\n")
	blocks := shellBlock.FindAllStringSubmatch(string(manual), -1)
	if len(blocks) < 5 {
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
	return string(out)
}
