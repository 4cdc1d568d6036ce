package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is an ordinary user's and group's ID.
const nobody = 65534

// An ordinary user mounts through fusermount3, which is setuid root.
func TestAnOrdinaryUserMountsAndUnmounts(t *testing.T) {
	if err := canMount(); err != nil {
		t.Skip("changing to another user and mounting need root and /dev/fuse:", err)
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Skip("no fusermount3")
	}
	if st, err := os.Stat("/dev/fuse"); err != nil || st.Mode().Perm()&0o006 != 0o006 {
		t.Skip("/dev/fuse is root's alone")
	}
	// Not t.TempDir: its parents are root's alone.
	dir, err := os.MkdirTemp("", "kmsfs-user-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(dir)
		os.RemoveAll(dir)
	})
	mnt := filepath.Join(dir, "mnt")
	kmsfs := filepath.Join(dir, "kmsfs")
	if self, err := os.ReadFile("/proc/self/exe"); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(kmsfs, self, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte(testPassphrase), 0o644); err != nil {
		t.Fatal(err)
	}
	keystore := filepath.Join(dir, "keystore.json")
	if err := makeCheapKeystore(keystore); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, mnt, keystore, keystore + ".lock"} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}

	run := func(wantCode int, program string, args ...string) string {
		t.Helper()
		c := exec.Command(program, args...)
		c.Dir = dir
		c.Env = []string{
			"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "KMSFS_KEYSTORE=" + keystore,
			"KMSFS_PASSPHRASE_FILE=" + filepath.Join(dir, "pw"), "GORACE=atexit_sleep_ms=0",
			"XDG_RUNTIME_DIR=" + dir,
		}
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		c.WaitDelay = 10 * time.Second
		if err := c.Run(); c.ProcessState == nil || c.ProcessState.ExitCode() != wantCode {
			t.Fatalf("%s %q: %v, want exit code %d\n%s", program, args, err, wantCode, &out)
		}
		return out.String()
	}
	run(0, kmsfs, "init", "enc")
	// A file without a name gets one, though nobody may look into the process.
	run(0, "/bin/sh", "-c", "echo hello >letter && echo old >replaced")
	run(0, kmsfs, "encrypt", "--key", "local:alias/kmsfs", "-i", "letter", "-o", "letter.enc")
	run(0, kmsfs, "decrypt", "--key", "local:alias/kmsfs", "-i", "letter.enc", "-o", "replaced")
	run(0, "/bin/sh", "-c", "cmp letter replaced && rm letter letter.enc replaced && ! ls -A | grep .kmsfs-")
	run(0, kmsfs, "mount", "enc", "mnt")
	run(0, "/bin/sh", "-c", "echo hello > mnt/file && chmod 400 mnt/file")

	if out := run(0, kmsfs, "status", "--json"); !strings.Contains(out, `"mountpoint": "`+mnt+`"`) || !strings.Contains(out, `"uid": 65534`) {
		t.Errorf("status: %s", out)
	}

	// No other user of the same ID looks into the daemon's memory.
	m, _, err := findMount(mnt)
	if err != nil {
		t.Fatal(err)
	}
	w := watch(m.device)
	if w == nil {
		t.Fatal("nobody serves the mount")
	}
	pid := strconv.Itoa(w.pid)
	w.close()
	run(1, "/bin/sh", "-c", "cat /proc/"+pid+"/maps || exit 1")
	if limits, err := os.ReadFile("/proc/" + pid + "/limits"); err != nil || !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
		t.Errorf("the daemon may dump core: %v\n%s", err, limits)
	}
	if cwd, err := os.Readlink("/proc/" + pid + "/cwd"); err != nil || cwd != "/" {
		t.Errorf("the daemon works in %s: %v", cwd, err)
	}

	busy := exec.Command("sleep", "100")
	busy.Dir = mnt
	busy.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	if out := run(exitOther, kmsfs, "unmount", "mnt"); !strings.Contains(out, "mnt is in use") {
		t.Errorf("said %q", out)
	}
	_ = busy.Process.Kill()
	_ = busy.Wait()
	run(0, kmsfs, "unmount", "mnt")
	if st, err := os.Stat("/dev/cpu_dma_latency"); err == nil && st.Mode().Perm()&0o002 == 0 {
		if out := run(exitUsage, kmsfs, "mount", "enc", "mnt", "-o", "latency=low"); !strings.Contains(out, "permission denied") {
			t.Errorf("latency=low, which is root's: %s", out)
		}
	}
	run(0, kmsfs, "mount", "enc", "mnt", "-o", "noexec")
	if out := run(0, "/bin/cat", "mnt/file"); out != "hello\n" {
		t.Errorf("read %q", out)
	}
	if _, err := os.ReadDir(mnt); err == nil {
		t.Error("root, without allow_other, is let in")
	}
	run(0, kmsfs, "unmount", "mnt")
	if out := run(0, kmsfs, "info", "enc"); strings.Contains(out, "mounted") {
		t.Errorf("after unmount: %s", out)
	}
	run(exitMountpoint, kmsfs, "unmount", "mnt")
}
