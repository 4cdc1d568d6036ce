package emulator

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// toolsEnv names the directory of the Python programs, which scripts/test
// installs with scripts/pytools.
const toolsEnv = "KMSFS_TEST_PYTOOLS"

// Tool is the path of a Python program; without it the test is skipped.
func Tool(t testing.TB, program string) string {
	t.Helper()
	dir := os.Getenv(toolsEnv)
	if dir == "" {
		t.Skipf("%s is not set, so there is no %s: run through scripts/test", toolsEnv, program)
	}
	return filepath.Join(dir, "bin", program)
}

var runningOn = regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`)

// Moto starts moto's server.
func Moto(t testing.TB) *Server {
	t.Helper()
	cmd := exec.Command(Tool(t, "moto_server"), "-H", "127.0.0.1", "-p", "0")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start moto: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	url := make(chan string, 1)
	go func() {
		defer close(url)
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := runningOn.FindStringSubmatch(lines.Text()); m != nil {
				url <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, out) // it logs every request
	}()
	select {
	case u, ok := <-url:
		if !ok {
			t.Fatal("moto ended before it served")
		}
		return &Server{URL: u, AccessKeyID: "AKIAIOSFODNN7EXAMPLE", Secret: "example"}
	case <-time.After(5 * time.Minute):
		t.Fatal("moto does not serve after 5 minutes")
		return nil
	}
}
