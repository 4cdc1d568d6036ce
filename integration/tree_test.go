package integration

import (
	"bytes"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/volume"
)

// sourceTree is a real tree: a part of the Go distribution.
func sourceTree(t testing.TB, part string) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src", part)
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the Go distribution has no sources: %v", err)
	}
	return dir
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestATreeComesBackIdenticalAfterRemounting(t *testing.T) {
	for _, mode := range []volume.KeyMode{volume.ModeFile, volume.ModeVolume} {
		t.Run(string(mode), func(t *testing.T) {
			src := sourceTree(t, "crypto")
			m := newVolume(t, mode)
			m.mount()
			run(t, "cp", "-a", src, m.Dir+"/tree")
			run(t, "diff", "-r", src, m.Dir+"/tree")
			m.unmount()
			m.mount()
			run(t, "diff", "-r", src, m.Dir+"/tree")
			compareMetadata(t, src, m.Dir+"/tree")
			if t.Failed() {
				return
			}
			run(t, "rm", "-rf", m.Dir+"/tree")
			m.unmount()
			if left := countFiles(t, filepath.Join(m.Backing, ".kmsfs", "keys")); left != 0 {
				t.Errorf("%d sidecars are left after all files were removed", left)
			}
		})
	}
}

// compareMetadata compares modes and modification times, to the nanosecond.
func compareMetadata(t *testing.T, a, b string) {
	t.Helper()
	err := filepath.WalkDir(a, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(a, path)
		if err != nil {
			return err
		}
		want, err := os.Lstat(path)
		if err != nil {
			return err
		}
		got, err := os.Lstat(filepath.Join(b, rel))
		if err != nil {
			return err
		}
		if got.Mode() != want.Mode() || !got.ModTime().Equal(want.ModTime()) || (!d.IsDir() && got.Size() != want.Size()) {
			return fmt.Errorf("%s: %v %v %d, want %v %v %d", rel, got.Mode(), got.ModTime(), got.Size(),
				want.Mode(), want.ModTime(), want.Size())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func countFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d iofs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTheBackingTreeShowsNeitherNamesNorContents(t *testing.T) {
	m := newVolume(t, volume.ModeFile)
	m.mount()
	secret := []byte("the quick brown fox, kmsfs-secret-content")
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(m.Dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(m.Dir, "kmsfs-secret-dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("kmsfs-secret-name", secret)
	write("kmsfs-secret-dir/kmsfs-secret-again", secret)
	long := "kmsfs-secret-" + strings.Repeat("n", 240)
	write(long, secret)
	if err := os.Symlink("kmsfs-secret-target", filepath.Join(m.Dir, "kmsfs-secret-link")); err != nil {
		t.Fatal(err)
	}
	m.unmount()

	var contents [][]byte
	seen := 0
	err := filepath.WalkDir(m.Backing, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		if strings.Contains(path, "secret") {
			t.Errorf("a plaintext name: %s", path)
		}
		var b []byte
		switch {
		case d.Type()&iofs.ModeSymlink != 0:
			s, err := os.Readlink(path)
			if err != nil {
				return err
			}
			b = []byte(s)
		case d.Type().IsRegular():
			if b, err = os.ReadFile(path); err != nil {
				return err
			}
			if len(b) == 144+40+len(secret) {
				contents = append(contents, b)
			}
		}
		if bytes.Contains(b, []byte("secret")) || bytes.Contains(b, secret[:16]) {
			t.Errorf("plaintext in %s", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(contents) != 3 || seen < 10 {
		t.Fatalf("found %d data files among %d objects, want 3", len(contents), seen)
	}
	// The same data three times: past the common magic nothing agrees but by chance.
	for i := range contents {
		for j := range i {
			same := 0
			for k := 24; k < len(contents[i]); k++ {
				if contents[i][k] == contents[j][k] {
					same++
				}
			}
			if same > 16 {
				t.Errorf("files of the same content share %d of %d bytes", same, len(contents[i])-24)
			}
		}
	}
}
