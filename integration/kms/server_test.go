package kms

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kmsfs/kmsprovider/local"
)

// kmsfsBinary builds the command once for all tests.
var kmsfsBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kmsfs-bin")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "kmsfs")
	out, err := exec.Command("go", "build", "-o", bin, "kmsfs/cmd/kmsfs").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build kmsfs: %w\n%s", err, out)
	}
	return bin, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := kmsfsBinary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// program is the path of one of the Python programs.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("KMSFS_TEST_PYTOOLS")
	if dir == "" {
		t.Skip("KMSFS_TEST_PYTOOLS is not set; run through scripts/test, which installs the programs")
	}
	return filepath.Join(dir, "bin", name)
}

// keys are an access key, or none.
type keys struct{ id, secret string }

// server is a keystore and a process of kmsfs kms serve for it.
type server struct {
	t        *testing.T
	path     string
	flags    []string
	keystore *local.Keystore // the test's own, of the same file
	endpoint string          // http://127.0.0.1:PORT
	cmd      *exec.Cmd
	ended    chan error
}

const passphrase = "correct horse"

// newServer makes a keystore whose passphrase is checked fast, and serves it.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, path: filepath.Join(dir, "keystore.json"), flags: flags}
	var err error
	s.keystore, err = local.Create(context.Background(), local.Options{
		Path:       s.path,
		Passphrase: func() ([]byte, error) { return []byte(passphrase), nil },
		KDF:        &local.KDFParams{Time: 1, MemoryKiB: 8, Threads: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.keystore.Close() })
	if err := os.WriteFile(filepath.Join(dir, "passphrase"), []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.stop)
	return s
}

var serving = regexp.MustCompile(` at (http://127\.0\.0\.1:[0-9]+), `)

func (s *server) start() {
	s.t.Helper()
	bin, err := kmsfsBinary()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(bin, append([]string{"kms", "serve", "--listen", "127.0.0.1:0"}, s.flags...)...)
	s.cmd.Env = append(os.Environ(), "KMSFS_KEYSTORE="+s.path, "KMSFS_PASSPHRASE_FILE="+filepath.Join(filepath.Dir(s.path), "passphrase"))
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	messages := bufio.NewReader(stderr)
	line, err := messages.ReadString('\n')
	found := serving.FindStringSubmatch(line)
	if err != nil || found == nil {
		_ = s.cmd.Process.Kill()
		s.t.Fatalf("kms serve says %q, %v", line, err)
	}
	s.endpoint = found[1]
	s.ended = make(chan error, 1)
	go func() {
		rest, _ := io.ReadAll(messages)
		err := s.cmd.Wait()
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("it said %s", rest)
		}
		s.ended <- err
	}()
}

// stop ends the server, which must go in peace. Nothing to do where it is gone.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Errorf("kms serve is gone already: %v", err)
	}
	if err := <-s.ended; err != nil {
		s.t.Errorf("kms serve: %v", err)
	}
	s.cmd = nil
}

func (s *server) kill() {
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.ended
	s.cmd = nil
}

// do is a call in the test's own process.
func do[Output any](t *testing.T, k *local.Keystore, in local.Input) *Output {
	t.Helper()
	out, err := k.Do(t.Context(), k.Root(), in)
	if err != nil {
		t.Fatal(err)
	}
	typed, _ := out.(*Output)
	return typed
}

// principal makes a principal, with a policy unless that is empty.
func (s *server) principal(name, policy string) keys {
	s.t.Helper()
	made := do[local.CreatePrincipalOutput](s.t, s.keystore, &local.CreatePrincipalInput{PrincipalName: name})
	if policy != "" {
		do[struct{}](s.t, s.keystore, &local.PutPrincipalPolicyInput{PrincipalName: name, Policy: policy})
	}
	return keys{made.Principal.AccessKeyID, made.SecretAccessKey}
}

// startMoto starts the emulator and returns its endpoint.
func startMoto(t *testing.T) string {
	t.Helper()
	bin := program(t, "moto_server")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	cmd := exec.Command(bin, "-H", "127.0.0.1", "-p", address[strings.LastIndexByte(address, ':')+1:])
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for deadline := time.Now().Add(time.Minute); ; {
		response, err := http.Get("http://" + address + "/moto-api/")
		if err == nil {
			response.Body.Close()
			return "http://" + address
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("moto ended: %v", err)
		default:
		}
		if time.Now().After(deadline) || !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("moto does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
