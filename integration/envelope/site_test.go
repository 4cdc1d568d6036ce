package envelope

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/integration/program"
)

func TestMain(m *testing.M) { os.Exit(program.Main(m)) }

// site is a directory where both commands work with the same KMS.
type site struct {
	t    *testing.T
	dir  string
	env  []string
	keys []string // ARNs of keys
	ours string   // our command
}

// servers are what stands in for AWS KMS.
var servers = map[string]func(testing.TB) *emulator.Server{"kmsfs kms serve": emulator.Local, "moto": emulator.Moto}

// newSite makes one with three keys.
func newSite(t *testing.T, server func(testing.TB) *emulator.Server) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), ours: program.Path(t)}
	kms := server(t)
	for range 3 {
		s.keys = append(s.keys, kms.CreateKey(t))
	}
	s.env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "AWS_") || strings.HasPrefix(v, "KMSFS_")
	})
	s.env = append(s.env, "HOME="+s.dir)
	for name, value := range kms.Environment(kms.URL) {
		if value != "" { // Python takes an empty variable for a value
			s.env = append(s.env, name+"="+value)
		}
	}
	return s
}

func (s *site) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

func (s *site) mkdir(elements ...string) string {
	s.t.Helper()
	if err := os.MkdirAll(s.path(elements...), 0o700); err != nil {
		s.t.Fatal(err)
	}
	return s.path(elements...)
}

// command is not started yet.
func (s *site) command(program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Dir, c.Env = s.dir, s.env
	return c
}

// run runs a program that has to succeed.
func (s *site) run(program string, args ...string) {
	s.t.Helper()
	s.pipe(nil, program, args...)
}

// pipe does so between pipes.
func (s *site) pipe(stdin io.Reader, program string, args ...string) (stdout []byte) {
	s.t.Helper()
	c := s.command(program, args...)
	var stderr bytes.Buffer
	c.Stdin, c.Stderr = stdin, &stderr
	stdout, err := c.Output()
	if err != nil {
		s.t.Fatalf("%s %q: %v\n%s", filepath.Base(program), args, err, &stderr)
	}
	return stdout
}

// aws is the official command. Without it the test is skipped.
func (s *site) aws() string {
	s.t.Helper()
	return emulator.Tool(s.t, "aws-encryption-cli")
}

// official runs that. It wants to be told that it is to say nothing.
func (s *site) official(args ...string) {
	s.t.Helper()
	s.run(s.aws(), append(args, "--suppress-metadata")...)
}

// sizes are around the edges of the frames of either command, and then some.
var sizes = []int{0, 1, 4095, 4096, 4097, 8192, 65536, 10 << 20}

// plain makes a tree with a file of every size.
func (s *site) plain(dir string) {
	s.t.Helper()
	for _, size := range sizes {
		writeRandom(s.t, filepath.Join(s.mkdir(dir), fmt.Sprintf("%d-bytes", size)), int64(size))
	}
}

// sameAsPlain checks what came of each of them. Either command added a suffix
// to each name at encryption; suffix is both.
func (s *site) sameAsPlain(plain, dir, suffix string) {
	s.t.Helper()
	for _, size := range sizes {
		name := fmt.Sprintf("%d-bytes", size)
		sameContent(s.t, filepath.Join(s.path(dir), name+suffix), s.path(plain, name))
	}
}

func writeRandom(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var seed [32]byte
	copy(seed[:], filepath.Base(path))
	if _, err := io.CopyN(f, rand.NewChaCha8(seed), size); err != nil {
		t.Fatal(err)
	}
}

func sameContent(t testing.TB, got, want string) {
	t.Helper()
	if g, w := sum(t, got), sum(t, want); g != w {
		t.Errorf("%s differs from %s", got, want)
	}
}

func sum(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return path
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%d bytes, %x", n, h.Sum(nil))
}
