package integration

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/integration/emulator"
	"kmsfs/integration/faultproxy"
)

// outage is a way in which a KMS is not itself.
type outage struct {
	name   string
	fault  faultproxy.Fault
	refuse bool
	// exit is the command's exit code when it mounts meanwhile; 0: only slow.
	exit int
}

var outages = []outage{
	{name: "slow by 10 ms", fault: faultproxy.Fault{Delay: 10 * time.Millisecond}},
	{name: "slow by 100 ms", fault: faultproxy.Fault{Delay: 100 * time.Millisecond}},
	{name: "throttling", fault: faultproxy.Throttled, exit: 22},
	{name: "failing", fault: faultproxy.Internal, exit: 23},
	{name: "hanging", fault: faultproxy.Hanging, exit: 23},
	{name: "cut off", fault: faultproxy.CutInBodies, exit: 23},
	{name: "refusing", refuse: true, exit: 23},
}

// kmsDeadline is what a mount waits for its KMS in these tests.
// Without an outage it answers much earlier, on a busy machine too.
const kmsDeadline = 2 * time.Second

// onOutages is a mount whose KMS is behind a proxy.
type onOutages struct {
	*daemon
	proxy *faultproxy.Proxy
	kept  map[string]string // what was acknowledged, by file
	tried map[string]string // what was written since and was not
}

func (m *onOutages) begin(o outage) {
	m.proxy.Set(o.fault)
	if o.refuse {
		m.proxy.Refuse()
	}
}

func (m *onOutages) end() {
	m.proxy.Set(faultproxy.None)
	m.proxy.Accept()
}

// within makes a call that must end: a program may not hang with its KMS.
func (m *onOutages) within(what string, call func() error) error {
	m.t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		m.t.Fatalf("%s has not ended after a minute", what)
		return nil
	}
}

// want checks how a call ended: as it should, or with ETIMEDOUT in an outage.
func (m *onOutages) want(o outage, what string, err error) {
	m.t.Helper()
	switch {
	case o.exit == 0 && err != nil:
		m.t.Errorf("%s: %v", what, err)
	case o.exit != 0 && !errors.Is(err, unix.ETIMEDOUT):
		m.t.Errorf("%s: %v, want ETIMEDOUT", what, err)
	}
}

// write writes a file whole and closes it, after fsync if it is synced. Once
// that has succeeded it is acknowledged.
func (m *onOutages) write(name, text string, synced bool) error {
	m.tried[name] = text
	err := m.within("write "+name, func() error {
		fd, err := unix.Open(filepath.Join(m.Dir, name), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		for at := 0; err == nil && at < len(text); {
			var n int
			n, err = unix.Pwrite(fd, []byte(text)[at:], int64(at))
			at += max(n, 0)
		}
		if err == nil && synced {
			err = unix.Fsync(fd)
		}
		if closed := unix.Close(fd); err == nil {
			err = closed
		}
		return err
	})
	if err == nil {
		m.kept[name] = text
		delete(m.tried, name)
	}
	return err
}

// check reads a file: each block must be what was acknowledged, or what was
// tried after that.
func (m *onOutages) check(name string) error {
	const block = 4096
	return m.within("read "+name, func() error {
		fd, err := unix.Open(filepath.Join(m.Dir, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		b := make([]byte, 4*block)
		n, err := unix.Pread(fd, b, 0)
		if err != nil {
			return err
		}
		kept, tried := m.kept[name], m.tried[name]
		if n != len(kept) && n != len(tried) {
			return fmt.Errorf("%d bytes, want %d", n, len(kept))
		}
		for at := 0; at < n; at += block {
			end := min(at+block, n)
			got := string(b[at:end])
			if !(end <= len(kept) && got == kept[at:end]) && !(end <= len(tried) && got == tried[at:end]) {
				return fmt.Errorf("block %d is neither what was acknowledged nor what was written since", at/block)
			}
		}
		return nil
	})
}

// text is a page and a bit, so that a write of it covers a page and needs another one.
func text(seed int) string {
	b := make([]byte, 4096+100)
	for i := range b {
		b[i] = byte('a' + (i+seed)%26)
	}
	return string(b)
}

func TestAMountOutlivesEveryOutageOfItsKMS(t *testing.T) {
	server := emulator.Local(t)
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			outlive(t, server, o)
		})
	}
}

func outlive(t *testing.T, server *emulator.Server, o outage) {
	proxy := faultproxy.New(t, faultproxy.To(t, server.URL))
	m := &onOutages{
		daemon: newDaemonIn(t, server.Environment(proxy.URL), "--key", server.CreateKey(t)),
		proxy:  proxy, kept: make(map[string]string), tried: make(map[string]string),
	}
	m.flags = []string{"--kms-deadline", kmsDeadline.String()}
	m.start()
	names := []string{"warm", "read", "synced", "closed"}
	for i, name := range names {
		if err := m.write(name, text(i), true); err != nil {
			t.Fatalf("write %s: %v", name, err)
		}
	}
	m.stop()

	// At mount: it ends, with the exit code of the cause, and mounts nothing.
	m.begin(o)
	m.mountMeanwhile(o)
	m.end()

	// At create, open, read, write, fsync and close.
	m.start()
	if err := m.check("warm"); err != nil {
		t.Fatal(err)
	}
	m.begin(o)
	if err := m.write("warm", text(10), true); err != nil {
		t.Errorf("a file whose key is there: %v", err)
	}
	m.want(o, "read", m.check("read"))
	m.want(o, "write and fsync", m.write("synced", text(11), true))
	m.want(o, "write and close", m.write("closed", text(12), false))
	m.want(o, "create", m.createMany(o))
	m.end()

	// All heals by itself.
	for _, name := range names {
		if err := m.check(name); err != nil {
			t.Errorf("afterwards: read %s: %v", name, err)
		}
	}
	for i, name := range append(names, "new") {
		_, lost := m.tried[name]
		err := m.write(name, text(20+i), i%2 == 0)
		if lost && errors.Is(err, unix.ETIMEDOUT) {
			// A page that could not be written is reported once, by the first fsync after that.
			err = m.write(name, text(20+i), i%2 == 0)
		}
		if err != nil {
			t.Errorf("afterwards: write %s: %v", name, err)
		}
	}

	// At unmount.
	m.begin(o)
	_ = m.within("unmount", func() error { m.stop(); return nil })
	m.end()

	// Nothing that was acknowledged is lost.
	m.start()
	for name := range m.kept {
		if err := m.check(name); err != nil {
			t.Errorf("after remount: read %s: %v", name, err)
		}
	}
	m.stop()
}

// mountMeanwhile mounts in an outage.
func (m *onOutages) mountMeanwhile(o outage) {
	m.t.Helper()
	cmd := exec.Command(m.bin, slices.Concat([]string{"mount"}, m.flags, []string{m.Backing, m.Dir})...)
	cmd.Env = m.env
	var out []byte
	err := m.within("mount", func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if code := cmd.ProcessState.ExitCode(); code != o.exit {
		m.t.Errorf("mount: exit code %d, want %d: %v\n%s", code, o.exit, err, out)
	}
	if isMounted(m.Dir) != (o.exit == 0) {
		m.t.Errorf("mounted: %v", isMounted(m.Dir))
	}
	if o.exit == 0 {
		m.run("unmount", m.Dir)
	}
}

// createMany makes files until one fails, or more than there are keys in store.
func (m *onOutages) createMany(o outage) error {
	files := 600
	if o.exit == 0 {
		files = 40
	}
	for i := range files {
		if err := m.write(fmt.Sprintf("created-%d", i), "x", i%2 == 0); err != nil {
			return err
		}
	}
	return nil
}
