package kms

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"

	"kmsfs/integration/program"
	"kmsfs/kmsprovider/local"
)

func TestMain(m *testing.M) { os.Exit(program.Main(m)) }

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

// newKeystore makes a keystore in dir whose passphrase is checked fast, and a
// server of it that is not started.
func newKeystore(t *testing.T, dir string) *server {
	t.Helper()
	s := &server{t: t, path: filepath.Join(dir, "keystore.json")}
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
	if err := os.WriteFile(s.passphraseFile(), []byte(passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) passphraseFile() string { return filepath.Join(filepath.Dir(s.path), "passphrase") }

// newServer serves a new keystore.
func newServer(t *testing.T, flags ...string) *server {
	t.Helper()
	s := newKeystore(t, t.TempDir())
	s.flags = flags
	s.start()
	t.Cleanup(s.stop)
	return s
}

var serving = regexp.MustCompile(` at (http://127\.0\.0\.1:[0-9]+), `)

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(program.Path(s.t), append([]string{"kms", "serve", "--listen", "127.0.0.1:0"}, s.flags...)...)
	s.cmd.Env = append(os.Environ(), "KMSFS_KEYSTORE="+s.path, "KMSFS_PASSPHRASE_FILE="+s.passphraseFile())
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

// freePort returns a port that nobody listens on, for programs that cannot
// choose one themselves. It is none of those that the kernel gives to whoever asks
// for any, other tests that run meanwhile among them.
func freePort(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var first, last int
	if _, err := fmt.Sscan(string(b), &first, &last); err != nil {
		t.Fatal(err)
	}
	const from = 10_000
	for range 100 {
		port := strconv.Itoa(from + rand.IntN(max(first-from, 20_000)))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}
