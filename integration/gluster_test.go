package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var overGluster = flag.Bool("gluster", false, "run the tests of shared mounts over GlusterFS, too, for ten minutes and more")

// The guarantees of docs/SHARED.md over GlusterFS: a volume of two bricks on this
// machine, mounted twice, each mount with a client of its own, as on two hosts.

func TestSharedMountsKeepTheirGuaranteesOverGlusterFS(t *testing.T) {
	if !*overGluster {
		t.Skip("takes ten minutes and more; scripts/shared runs it")
	}
	needFuse(t)
	need(t, "glusterd", "gluster", "glusterfs")
	if os.Geteuid() != 0 {
		t.Skip("GlusterFS's daemon is for root")
	}
	g := startGluster(t)
	for i, s := range sharedTests {
		t.Run(s.name, func(t *testing.T) {
			var place sharedPlace
			for k := range place {
				place[k] = filepath.Join(g.mounts[k], strconv.Itoa(i))
			}
			ok(t, os.Mkdir(place[0], 0o700))
			h := newHosts(t, place)
			h.few = true
			s.test(t, h)
		})
	}
}

// gluster is a GlusterFS volume that is mounted twice.
type gluster struct {
	t      *testing.T
	dir    string // everything is in it
	socket string
	mounts [2]string
}

// glusterOptions are those that docs/SHARED.md asks for.
var glusterOptions = []string{
	"performance.write-behind", "performance.read-ahead", "performance.io-cache", "performance.quick-read",
	"performance.open-behind", "performance.stat-prefetch", "performance.readdir-ahead",
}

// startGluster starts a daemon with files and sockets of its own, makes a volume and
// mounts it. Its port is GlusterFS's: bricks look for it there. When the test ends, however it does, all its processes do.
func startGluster(t *testing.T) *gluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "gluster") // paths of sockets are short
	ok(t, err)
	g := &gluster{t: t, dir: dir, socket: filepath.Join(dir, "socket")}
	t.Cleanup(func() {
		if !t.Failed() {
			os.RemoveAll(dir)
		}
	})
	for _, sub := range []string{"work", "run", "log", "a", "b", "one", "two"} {
		ok(t, os.Mkdir(filepath.Join(dir, sub), 0o700))
	}
	conf := filepath.Join(dir, "glusterd.vol")
	ok(t, os.WriteFile(conf, fmt.Appendf(nil, `volume management
    type mgmt/glusterd
    option working-directory %[1]s/work
    option run-directory %[1]s/run
    option glusterd-sockfile %[1]s/socket
    option transport-type socket
    option transport.socket.listen-port 24007
    option transport.socket.bind-address 127.0.0.1
    option base-port 49700
    option ping-timeout 0
    option event-threads 1
end-volume
`, dir), 0o600))
	g.serve("glusterd", "-N", "-f", conf, "-p", filepath.Join(dir, "glusterd.pid"), "-l", filepath.Join(dir, "log/glusterd"))
	t.Cleanup(g.killRest)
	waitFor(t, func() bool {
		_, err := g.try("volume", "info")
		return err == nil
	})
	host, err := os.Hostname()
	ok(t, err)
	g.run("volume", "create", "v", "replica", "2", host+":"+dir+"/a", host+":"+dir+"/b", "force")
	for _, o := range glusterOptions {
		g.run("volume", "set", "v", o, "off")
	}
	g.run("volume", "set", "v", "network.remote-dio", "enable")
	g.run("volume", "start", "v")
	t.Cleanup(func() {
		if _, err := g.try("volume", "stop", "v", "force"); err != nil {
			t.Log(err)
		}
	})
	for i, name := range []string{"one", "two"} {
		g.mounts[i] = filepath.Join(dir, name)
		g.mount(g.mounts[i])
	}
	return g
}

// serve starts a process that ends with the test.
func (g *gluster) serve(args ...string) {
	g.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = testWriter{g.t}
	ok(g.t, cmd.Start())
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		ended := make(chan struct{})
		go func() { _ = cmd.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
}

// mount mounts the volume as another host would.
func (g *gluster) mount(at string) {
	g.t.Helper()
	host, err := os.Hostname()
	ok(g.t, err)
	g.serve("glusterfs", "-N", "--volfile-server="+host, "--volfile-id=v",
		"--attribute-timeout=0", "--entry-timeout=0", "--negative-timeout=0", "-l", filepath.Join(g.dir, "log", filepath.Base(at)), at)
	g.t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	waitFor(g.t, func() bool {
		var st unix.Statfs_t
		return unix.Statfs(at, &st) == nil && st.Type == unix.FUSE_SUPER_MAGIC
	})
}

func (g *gluster) try(args ...string) (string, error) {
	out, err := exec.Command("timeout", append([]string{"60", "gluster", "--glusterd-sock=" + g.socket, "--mode=script"}, args...)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("gluster %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (g *gluster) run(args ...string) {
	g.t.Helper()
	if _, err := g.try(args...); err != nil {
		g.t.Fatal(err)
	}
}

// killRest ends what the daemon left: those of its processes that wrote their numbers
// into our directory.
func (g *gluster) killRest() {
	_ = filepath.Walk(filepath.Join(g.dir, "run"), func(p string, _ os.FileInfo, err error) error {
		if err != nil || !strings.HasSuffix(p, ".pid") {
			return nil
		}
		b, _ := os.ReadFile(p)
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil
		}
		// Ours name the directory in their arguments.
		if args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); strings.Contains(string(args), g.dir) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return nil
	})
}
