package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/integration/program"
)

func TestMain(m *testing.M) {
	if code, ok := runAsProcess(); ok {
		os.Exit(code)
	}
	os.Exit(program.Main(m))
}

// daemon is a volume with a mount that a process of its own serves.
type daemon struct {
	t       testing.TB
	Backing string
	Dir     string
	bin     string
	env     []string
	flags   []string  // of every mount
	cmd     *exec.Cmd // the serving process, nil if there is none
}

// newDaemon makes a keystore and a volume through the command.
func newDaemon(t testing.TB, initFlags ...string) *daemon {
	t.Helper()
	return newDaemonIn(t, nil, initFlags...)
}

// newDaemonIn does so with more in the environment.
func newDaemonIn(t testing.TB, environment map[string]string, initFlags ...string) *daemon {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("no /dev/fuse here; a machine with the fuse module runs this: %v", err)
	}
	bin := program.Path(t)
	home := t.TempDir()
	d := &daemon{t: t, bin: bin, Backing: filepath.Join(home, "backing"), Dir: t.TempDir()}
	if err := os.WriteFile(d.passphrase(), []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+filepath.Join(home, "run"), "XDG_STATE_HOME="+filepath.Join(home, "state"),
		"KMSFS_KEYSTORE="+d.keystore(), "KMSFS_PASSPHRASE_FILE="+d.passphrase())
	for name, value := range environment {
		d.env = append(d.env, name+"="+value)
	}
	d.run(append(append([]string{"init"}, initFlags...), d.Backing)...)
	t.Cleanup(d.kill)
	return d
}

// keystore and passphrase are files beside the backing directory.
func (d *daemon) keystore() string   { return filepath.Join(filepath.Dir(d.Backing), "keystore.json") }
func (d *daemon) passphrase() string { return filepath.Join(filepath.Dir(d.Backing), "passphrase") }

func (d *daemon) run(args ...string) string {
	d.t.Helper()
	cmd := exec.Command(d.bin, args...)
	cmd.Env = d.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("kmsfs %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start mounts the volume and waits until it is served.
func (d *daemon) start(flags ...string) {
	d.t.Helper()
	cmd := exec.Command(d.bin, slices.Concat([]string{"mount", "-f"}, d.flags, flags, []string{d.Backing, d.Dir})...)
	cmd.Env = d.env
	cmd.Stderr = testWriter{d.t}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.cmd = cmd
	deadline := time.Now().Add(patience)
	for !isMounted(d.Dir) {
		if time.Now().After(deadline) {
			_ = cmd.Process.Signal(unix.SIGQUIT) // it says what it is doing
			_ = cmd.Wait()
			d.t.Fatalf("not mounted after %v", patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends the serving process at once and clears the mount point away.
func (d *daemon) kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.cmd = nil
	if isMounted(d.Dir) {
		if err := detach(d.Dir); err != nil {
			d.t.Errorf("unmount after kill: %v", err)
		}
	}
}

// stop ends the mount cleanly.
func (d *daemon) stop() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(unix.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	err := d.cmd.Wait()
	d.cmd = nil
	if err != nil || isMounted(d.Dir) {
		d.t.Fatalf("after SIGTERM: %v, still mounted: %v", err, isMounted(d.Dir))
	}
}

// detach unmounts as root does, or as an ordinary user.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.MNT_DETACH)
	}
	return exec.Command("fusermount3", "-u", "-z", "--", dir).Run()
}

func isMounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	return err == nil && strings.Contains(string(b), " "+dir+" fuse.kmsfs ")
}
