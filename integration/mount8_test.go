package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/integration/program"
)

func init() {
	testProcess("mount8", mount8)
}

// TestMountFstabAndUmountWorkThroughMount8 runs mount(8) and umount(8) in
// namespaces of their own, where mount.kmsfs stands in /sbin and /etc/fstab can
// be written. What is mounted there, and who serves it, ends with them.
func TestMountFstabAndUmountWorkThroughMount8(t *testing.T) {
	t.Parallel()
	needRoot(t, "namespaces and mount(8) are for root")
	needFuse(t)
	need(t, "mount", "umount")
	for _, file := range []string{"/etc/fstab", "/sbin"} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("%s is to be replaced in a namespace, and has to be there: %v", file, err)
		}
	}
	bin := program.Path(t)
	// What go test builds lies where only its user can go.
	home := userDir(t, 0, 0)
	command := filepath.Join(home, "kmsfs")
	copyProgram(t, bin, command)
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := process(t, "mount8")
	cmd.Env = append(cmd.Env, "TMPDIR="+home, program.Env+"="+command)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if !passed("mount8", out, err) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// host is a machine of its own, as far as mount(8) can see.
type host struct {
	t   *testing.T
	dir string
}

// newHost puts a directory with little but the helpers into the place of /sbin,
// and an empty one into that of /var/lib, where root's mounts remember volumes.
// What stood there is covered, and can be reached by no other path: whatever
// cleans up here must not find it.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Getpid() != 1 {
		t.Fatal("only as the first process of namespaces of its own")
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "host") // in the directory of the user who runs this
	check(err)
	check(os.Chmod(dir, 0o755))
	h := &host{t: t, dir: dir}
	bin := program.Path(t)
	check(unix.Mount("proc", "/proc", "proc", 0, "")) // of the new process IDs
	sbin, state := filepath.Join(dir, "sbin"), filepath.Join(dir, "state")
	check(os.Mkdir(sbin, 0o755))
	check(os.Mkdir(state, 0o755))
	for _, name := range []string{"mount.kmsfs", "kmsfs"} { // the second for mount.fuse
		check(os.Symlink(bin, filepath.Join(sbin, name)))
	}
	if _, err := os.Stat("/sbin/mount.fuse"); err == nil {
		copyProgram(t, "/sbin/mount.fuse", filepath.Join(sbin, "mount.fuse"))
	}
	check(unix.Mount(sbin, "/sbin", "", unix.MS_BIND, ""))
	check(unix.Mount(state, "/var/lib", "", unix.MS_BIND, ""))
	h.fstab()
	return h
}

// fstab makes these lines the whole of /etc/fstab.
func (h *host) fstab(lines ...string) {
	h.t.Helper()
	h.replace("/etc/fstab", strings.Join(lines, "\n")+"\n")
}

// replace covers a file by another.
func (h *host) replace(path, content string) {
	h.t.Helper()
	file := filepath.Join(h.dir, filepath.Base(path))
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
		h.t.Fatal(err)
	}
}

// run runs a program as the boot does: without a terminal, and with hardly any
// environment. One that does not end is killed, which fails the test.
func (h *host) run(uid uint32, args ...string) (string, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "GORACE=atexit_sleep_ms=0"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		h.t.Fatalf("%q hangs:\n%s", args, out)
	}
	return string(out), err
}

func (h *host) must(args ...string) {
	h.t.Helper()
	if out, err := h.run(0, args...); err != nil {
		h.t.Fatalf("%q: %v\n%s", args, err, out)
	}
}

// fails runs what must fail, and say why.
func (h *host) fails(why string, args ...string) {
	h.t.Helper()
	out, err := h.run(0, args...)
	if err == nil || !strings.Contains(out, why) {
		h.t.Errorf("%q: %v, want an error with %q:\n%s", args, err, why, out)
	}
}

// mounts counts the kmsfs mounts of a source on a directory.
func (h *host) mounts(source, dir string) int {
	h.t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		h.t.Fatal(err)
	}
	return bytes.Count(b, fmt.Appendf(nil, "%s %s fuse.kmsfs ", source, dir))
}

// is checks whether a volume is mounted.
func (h *host) is(mounted bool, source, dir string) {
	h.t.Helper()
	if n := h.mounts(source, dir); mounted && n != 1 || !mounted && n != 0 {
		h.t.Fatalf("%s is mounted %d times on %s, want %v", source, n, dir, mounted)
	}
}

func mount8(t *testing.T, _ []string) {
	h := newHost(t)
	one, two := newDaemon(t), newDaemon(t)
	keystore, passphrase := "keystore="+one.keystore(), "passphrase-file="+one.passphrase()
	keys := keystore + "," + passphrase

	for _, kind := range []string{"kmsfs", "fuse.kmsfs"} {
		t.Run(kind, func(t *testing.T) {
			if kind == "fuse.kmsfs" {
				need(t, "/sbin/mount.fuse")
			}
			h := &host{t, h.dir}
			file := filepath.Join(one.Dir, kind)
			for i := range 5 { // one right after the other
				h.must("mount", "-t", kind, one.Backing, one.Dir, "-o", keys)
				h.is(true, one.Backing, one.Dir)
				f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(f, i)
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				h.must("umount", one.Dir)
				h.is(false, one.Backing, one.Dir)
			}
			h.must("mount", "-r", "-t", kind, "-o", keys, one.Backing, one.Dir)
			if got, err := os.ReadFile(file); err != nil || string(got) != "01234" {
				t.Errorf("read %q, %v", got, err)
			}
			if err := os.Remove(file); err != unix.EROFS && !strings.Contains(fmt.Sprint(err), "read-only") {
				t.Errorf("remove on a read-only mount: %v", err)
			}
			h.must("umount", one.Dir)
		})
	}

	t.Run("options", func(t *testing.T) {
		h := &host{t, h.dir}
		for _, o := range []string{
			"defaults,nofail,_netdev,noauto,auto,user,users,owner,group,nouser,comment=words",
			"x-systemd.automount,x-systemd.device-timeout=5s,x-systemd.requires=network-online.target,x-gvfs-show,X-mount.mkdir",
			"rw,suid,dev,exec,async,atime,diratime,allow_other,acl",
			"ro,nosuid,nodev,noexec,sync,dirsync,noatime,nodiratime,relatime,noxattr,writeback=off,open,idle=1h",
		} {
			h.must("mount", "-t", "kmsfs", "-o", keys+","+o, one.Backing, one.Dir)
			h.is(true, one.Backing, one.Dir)
			h.must("umount", one.Dir)
		}
		h.must("mount", "-f", "-t", "kmsfs", "-o", keys, one.Backing, one.Dir) // fake
		h.is(false, one.Backing, one.Dir)
		h.must("mount", "-s", "-t", "kmsfs", "-o", keys+",bogus", one.Backing, one.Dir) // sloppy
		h.must("umount", one.Dir)
		h.fails(`unknown mount option "bogus"`, "mount", "-t", "kmsfs", "-o", keys+",bogus", one.Backing, one.Dir)
		h.is(false, one.Backing, one.Dir)
	})

	t.Run("user", func(t *testing.T) {
		h := &host{t, h.dir}
		const owner, other = 4711, 4712
		home := filepath.Join(h.dir, "home")
		h.replace("/etc/passwd", "root:x:0:0::/root:/bin/sh\n"+
			fmt.Sprintf("owner:x:%d:%[1]d::%s:/bin/sh\nother:x:%d:%[3]d::/:/bin/sh\n", owner, home, other))
		backing, dir, pass := filepath.Join(home, "backing"), filepath.Join(home, "mnt"), filepath.Join(home, "passphrase")
		as := func(uid uint32, args ...string) error {
			t.Helper()
			out, err := h.run(uid, args...)
			t.Logf("as %d: %q: %v\n%s", uid, args, err, out)
			return err
		}
		for _, d := range []string{home, dir} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(d, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(pass, owner, owner); err != nil {
			t.Fatal(err)
		}
		if err := as(owner, "kmsfs", "init", "--passphrase-file", pass, backing); err != nil {
			t.Fatal(err)
		}
		h.fstab(backing + " " + dir + " kmsfs noauto,user,passphrase-file=" + pass + " 0 0")
		if err := as(owner, "mount", dir); err != nil {
			t.Fatal(err)
		}
		h.is(true, backing, dir)
		if err := as(owner, "touch", filepath.Join(dir, "file")); err != nil {
			t.Error(err)
		}
		if as(other, "ls", dir) == nil {
			t.Error("another user gets in")
		}
		if as(other, "umount", dir) == nil {
			t.Error("another user unmounts it")
		}
		if err := as(owner, "umount", dir); err != nil {
			t.Error(err)
		}
		h.is(false, backing, dir)
	})

	t.Run("fstab", func(t *testing.T) {
		h := &host{t, h.dir}
		three := filepath.Join(t.TempDir(), "made by mount")
		escaped := strings.ReplaceAll(three, " ", `\040`)
		h.fstab(
			"# <file system> <mount point> <type> <options> <dump> <pass>",
			"/absent "+two.Dir+" kmsfs nofail,"+keys+" 0 0",
			two.Backing+" "+two.Dir+" kmsfs nofail,keystore="+two.keystore()+" 0 0", // no passphrase
			one.Backing+" "+one.Dir+" kmsfs defaults,nofail,_netdev,x-systemd.requires=network-online.target,"+keys+" 0 2",
			two.Backing+" "+escaped+" fuse.kmsfs noauto,X-mount.mkdir,keystore="+two.keystore()+",passphrase-file="+two.passphrase()+" 0 0",
		)
		for range 2 { // the second time finds it mounted
			out, err := h.run(0, "mount", "-a")
			t.Logf("mount -a: %v\n%s", err, out)
			for _, want := range []string{"backing directory /absent does not exist", "no passphrase for keystore " + two.keystore(), "passphrase-file="} {
				if !strings.Contains(out, want) {
					t.Errorf("mount -a does not say %q", want)
				}
			}
			h.is(true, one.Backing, one.Dir)
			h.is(false, two.Backing, two.Dir)
			h.is(false, two.Backing, escaped)
		}
		h.must("umount", one.Dir)
		h.is(false, one.Backing, one.Dir)
		h.must("mount", three)
		h.is(true, two.Backing, escaped)
		h.must("umount", three)
		h.must("mount", one.Backing)
		h.must("umount", "-a", "-t", "fuse.kmsfs")
		h.is(false, one.Backing, one.Dir)
	})
}
