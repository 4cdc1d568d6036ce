package envelope

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/integration/emulator"
)

var long = flag.Bool("envelope.long", false, "with files of 1 GiB, also to and from the official command; takes minutes")

// kind is a way to encrypt.
type kind struct {
	name, suite string
	keys        int // how many wrap the data key; the first key of the site is the last of them
}

var kinds = []kind{
	{"signed", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384", 1},
	{"signed3", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384", 3},
	{"unsigned", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY", 1},
	{"unsigned3", "AES_256_GCM_HKDF_SHA512_COMMIT_KEY", 3},
}

// wrappedBy gives the kind's keys, each after flag.
func (k kind) wrappedBy(s *site, flag string) (args []string) {
	for i := k.keys - 1; i >= 0; i-- {
		args = append(args, flag+s.keys[i])
	}
	return args
}

// What one command encrypts, the other decrypts: every size, signed and not,
// with one key and with three, with a context. The official command takes a
// second to start, and so gets whole trees.
func TestTreesGoBothWays(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, server)
			s.plain("plain")
			for _, k := range kinds {
				s.run(s.ours, append([]string{"encrypt", "--suite", k.suite, "-c", "purpose=test", "kind=" + k.name, "--recursive",
					"--input", "plain", "--output", s.mkdir("ours", k.name)}, k.wrappedBy(s, "--key=")...)...)
				s.official(append([]string{"--encrypt", "--algorithm", k.suite, "--encryption-context", "purpose=test", "kind=" + k.name, "--recursive",
					"--input", "plain", "--output", s.mkdir("official", k.name), "--wrapping-keys"}, k.wrappedBy(s, "key=")...)...)
			}
			// The first key is the generator of one tree and the last key of another.
			s.official("--decrypt", "--recursive", "--encryption-context", "purpose=test", "--input", "ours", "--output", s.mkdir("ours.dec"), "--wrapping-keys", "key="+s.keys[0])
			s.run(s.ours, "decrypt", "--recursive", "-c", "purpose=test", "--input", "official", "--output", "official.dec", "--key", s.keys[0])
			for _, k := range kinds {
				s.sameAsPlain("plain", filepath.Join("ours.dec", k.name), ".encrypted.decrypted")
				s.sameAsPlain("plain", filepath.Join("official.dec", k.name), ".encrypted.decrypted")
			}
			s.wantSuite(s.path("ours", "unsigned", "1-bytes.encrypted"), 0x0478)
			s.wantSuite(s.path("official", "unsigned", "1-bytes.encrypted"), 0x0478)
			s.wantSuite(s.path("ours", "signed", "1-bytes.encrypted"), 0x0578)
		})
	}
}

// wantSuite checks the second and third byte of a message of version 2.
func (s *site) wantSuite(path string, suite uint16) {
	s.t.Helper()
	b, err := os.ReadFile(path)
	if want := []byte{2, byte(suite >> 8), byte(suite)}; err != nil || !bytes.HasPrefix(b, want) {
		s.t.Errorf("%s does not begin with %x: %v", path, want, err)
	}
}

// Nobody is told a key: the message is. And nothing lies in files.
func TestPipesAndDiscovery(t *testing.T) {
	s := newSite(t, emulator.Local)
	account := strings.Split(s.keys[0], ":")[4]
	text := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	ours := s.pipe(bytes.NewReader(text), s.ours, "encrypt", "--key", s.keys[1], "--frame-length", "512", "-c", "purpose=test")
	got := s.pipe(bytes.NewReader(ours), s.aws(), "--decrypt", "--input", "-", "--output", "-", "--suppress-metadata", "--encryption-context", "purpose=test",
		"--wrapping-keys", "discovery=true", "region="+emulator.Region, "discovery-account="+account, "discovery-partition=aws")
	if !bytes.Equal(got, text) {
		t.Errorf("the official command reads %d bytes", len(got))
	}
	official := s.pipe(bytes.NewReader(text), s.aws(), "--encrypt", "--input", "-", "--output", "-", "--suppress-metadata", "--encryption-context", "purpose=test",
		"--frame-length", "512", "--wrapping-keys", "key="+s.keys[2])
	for _, filter := range []string{"--discovery", "--discovery=" + account + ":aws"} {
		if got := s.pipe(bytes.NewReader(official), s.ours, "decrypt", filter, "-c", "purpose=test"); !bytes.Equal(got, text) {
			t.Errorf("kmsfs reads %d bytes", len(got))
		}
	}
	c := s.command(s.ours, "decrypt", "--discovery=000000000001:aws")
	c.Stdin = bytes.NewReader(official)
	if out, err := c.Output(); c.ProcessState.ExitCode() != 20 || len(out) != 0 {
		t.Errorf("with a filter that the key does not pass: %d bytes, %v", len(out), err)
	}
}

// The official command writes what no encryption by kmsfs does: messages of
// version 1, and bodies without frames.
func TestOldMessages(t *testing.T) {
	s := newSite(t, emulator.Local)
	s.plain("plain")
	const policy = "--commitment-policy=forbid-encrypt-allow-decrypt"
	s.official("--encrypt", policy, "--algorithm", "AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384", "--recursive", "--frame-length", "0",
		"--input", "plain", "--output", s.mkdir("old"), "--wrapping-keys", "key="+s.keys[0])
	s.run(s.ours, "decrypt", policy, "--recursive", "--input", "old", "--output", "new", "--key", s.keys[0])
	s.sameAsPlain("plain", "new", ".encrypted.decrypted")
	if b, err := os.ReadFile(s.path("old", "1-bytes.encrypted")); err != nil || !bytes.HasPrefix(b, []byte{1, 0x80, 0x03, 0x46}) {
		t.Errorf("the message does not begin as one of version 1: %v", err)
	}
}

// 1 GiB each way.
func TestAGibibyteGoesBothWays(t *testing.T) {
	if !*long {
		t.Skip("takes minutes; scripts/test --long runs it, by -envelope.long")
	}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, server)
			writeRandom(t, s.path("plain"), 1<<30)
			s.run(s.ours, "encrypt", "--key", s.keys[0], "--input", "plain", "--output", "ours")
			s.official("--decrypt", "--input", "ours", "--output", "ours.dec", "--wrapping-keys", "key="+s.keys[0])
			sameContent(t, s.path("ours.dec"), s.path("plain"))
			s.official("--encrypt", "--input", "plain", "--output", "official", "--wrapping-keys", "key="+s.keys[0])
			s.run(s.ours, "decrypt", "--key", s.keys[0], "--input", "official", "--output", "official.dec")
			sameContent(t, s.path("official.dec"), s.path("plain"))
		})
	}
}
