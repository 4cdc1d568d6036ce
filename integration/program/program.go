package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Env names a command that was built before, in a test that runs again elsewhere or as another user.
const Env = "KMSFS_TEST_BINARY"

var (
	mu   sync.Mutex
	dir  string // that it was built in; empty: not built
	path string
	fail error
)

// Path is the command, built at the first call.
func Path(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv(Env); bin != "" {
		return bin
	}
	mu.Lock()
	defer mu.Unlock()
	if path == "" && fail == nil {
		path, fail = build()
	}
	if fail != nil {
		t.Fatal(fail)
	}
	return path
}

func build() (string, error) {
	var err error
	if dir, err = os.MkdirTemp("", "kmsfs-bin"); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "kmsfs")
	out, err := exec.Command("go", "build", "-o", bin, "kmsfs/cmd/kmsfs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build kmsfs: %w\n%s", err, out)
	}
	return bin, nil
}

// Main runs the tests, removes what Path built and returns the exit code. A TestMain calls it.
func Main(m *testing.M) int {
	code := m.Run()
	mu.Lock()
	defer mu.Unlock()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
	return code
}
