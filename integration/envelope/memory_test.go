package envelope

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kmsfs/integration/emulator"
	"kmsfs/integration/program"
)

// mostResident is what a process may need for a file of any size, in KiB.
const mostResident = 64 << 10

// peak runs kmsfs between files, and returns the most that it had resident, in KiB.
func (s *site) peak(args ...string) int64 {
	s.t.Helper()
	c := s.command(s.ours, args...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	kib, err := program.Run(c)
	if err != nil {
		s.t.Fatalf("kmsfs %q: %v\n%s", args, err, &out)
	}
	return kib
}

// A large file takes no more memory than a small one, signed and not.
func TestMemoryDoesNotGrowWithTheFile(t *testing.T) {
	s := newSite(t, emulator.Local)
	large := int64(256 << 20)
	if *long {
		large = 1 << 30
	}
	for _, size := range []int64{1 << 20, large} {
		plain := s.path("plain")
		f, err := os.Create(plain)
		if err != nil {
			t.Fatal(err)
		}
		// A hole: what is read counts, not what is on the disk.
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		for _, suite := range []string{"0x0578", "0x0478"} {
			t.Run(fmt.Sprintf("%d MiB, %s", size>>20, suite), func(t *testing.T) {
				encrypted, decrypted := s.path("encrypted"), s.path("decrypted")
				for verb, kib := range map[string]int64{
					"encrypt": s.peak("encrypt", "--suite", suite, "--key", s.keys[0], "--input", plain, "--output", encrypted),
					"decrypt": s.peak("decrypt", "--key", s.keys[0], "--input", encrypted, "--output", decrypted),
				} {
					t.Logf("%s: %d KiB resident", verb, kib)
					if kib == 0 || kib >= mostResident {
						t.Errorf("%s: %d KiB resident at most, want under %d", verb, kib, mostResident)
					}
				}
				for path, least := range map[string]int64{encrypted: size, decrypted: size} {
					if info, err := os.Stat(path); err != nil || info.Size() < least {
						t.Errorf("%s: %v, %v", filepath.Base(path), info, err)
					}
				}
			})
		}
	}
}
