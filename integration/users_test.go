package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/integration/program"
)

// userEnv is set when tests run for another user's test.
const userEnv = "KMSFS_TEST_USER"

// asUser runs the test that it is called from once more, as an ordinary user in
// a process of its own, with what came of it as subtests. It tells whether the
// caller is to go on: it is that user.
func asUser(t *testing.T, name string) bool {
	t.Helper()
	if os.Getenv(userEnv) != "" || os.Geteuid() != 0 {
		return true
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Skipf("no user %s on this machine: %v", name, err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	bin := program.Path(t)
	home := userDir(t, uid, gid)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// What go test builds lies where only its user can go.
	tests, command := filepath.Join(home, "tests"), filepath.Join(home, "kmsfs")
	copyProgram(t, self, tests)
	copyProgram(t, bin, command)

	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tests, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=14m", "-test.count=1",
		fmt.Sprint("-ways.every=", *everyWay))
	cmd.Dir = home
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
	cmd.Env = append(os.Environ(), "HOME="+home, "USER="+name, "LOGNAME="+name, "TMPDIR="+home,
		"GOCACHE="+filepath.Join(home, "cache"), "GOPATH="+filepath.Join(home, "go"), program.Env+"="+command, userEnv+"="+name)
	out, err := cmd.CombinedOutput()
	results := regexp.MustCompile(`(?m)^\s*--- (PASS|FAIL|SKIP): `+t.Name()+`(?:/(\S+))? `).FindAllStringSubmatch(string(out), -1)
	if len(results) == 0 || (err != nil && !bytes.Contains(out, []byte("--- FAIL"))) {
		t.Fatalf("as %s: %v\n%s", name, err, out)
	}
	for _, r := range results {
		sub := "as an ordinary user"
		if r[2] != "" {
			sub += "/" + r[2]
		} else if len(results) > 1 {
			continue // counted by its subtests
		}
		t.Run(sub, func(t *testing.T) {
			switch r[1] {
			case "FAIL":
				t.Errorf("failed as %s", name)
			case "SKIP":
				t.Skipf("skipped as %s:\n%s", name, skipReason(string(out), r[2]))
			}
		})
	}
	if err != nil && !t.Failed() {
		t.Errorf("as %s: %v\n%s", name, err, out)
	}
	if err != nil || testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}

// skipReason finds what a test or subtest wrote when it skipped itself.
func skipReason(out, name string) string {
	_, after, ok := strings.Cut(out, name+" (")
	if !ok {
		return out
	}
	_, reason, _ := strings.Cut(after, "\n")
	if i := strings.Index(reason, "--- "); i >= 0 {
		reason = reason[:i]
	}
	return strings.TrimSpace(reason)
}

// userDir makes a directory of a user's that he can reach.
func userDir(t *testing.T, uid, gid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kmsfs-user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // what a user whose test died has left mounted ends here
		mounts, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); len(f) > 2 && strings.HasPrefix(f[1], dir+"/") {
				t.Errorf("left mounted: %s", f[1])
				_ = detach(f[1])
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove what the user made: %v", err)
		}
	})
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode()&0o001 == 0 {
			t.Skipf("an ordinary user cannot reach %s, which TMPDIR is in: set it to a directory that everybody can", p)
		}
		if p == "/" {
			break
		}
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	// A program that another test starts meanwhile would have the copy open for
	// writing until its exec, and who is written to cannot be run.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(to, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// needFuse skips the test if this user may not mount.
func needFuse(t testing.TB) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("uid %d cannot open /dev/fuse, which udev gives mode 0666: %v", os.Geteuid(), err)
	}
	unix.Close(fd)
	if _, err := exec.LookPath("fusermount3"); err != nil && os.Geteuid() != 0 {
		t.Skipf("ordinary users mount through fusermount3, of the package fuse3: %v", err)
	}
}

// need skips the test if a program is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed, scripts/test does that: %v", p, err)
		}
	}
}

// shell runs a program that must succeed, and returns what it wrote to stdout.
type shell struct {
	t   testing.TB
	Dir string
	Env []string
}

func (s shell) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.WaitDelay = s.Dir, 2*time.Second
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), s.Env...)
	return cmd
}

func (s shell) run(args ...string) string {
	s.t.Helper()
	return s.input("", args...)
}

func (s shell) input(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.try(stdin, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s shell) try(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := s.command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}
