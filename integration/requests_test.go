package integration

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/fs"
	"kmsfs/volume"
)

// waited leaves out the requests for which no program waits.
func waited(c map[string]uint64) map[string]uint64 {
	out := maps.Clone(c)
	for _, name := range []string{"RELEASE", "FORGET", "RELEASEDIR"} {
		delete(out, name)
	}
	return out
}

// requests returns what a call made the kernel ask for, waited for or not until
// the mount has been quiet for a moment.
func (m *mounted) requests(call func()) map[string]uint64 {
	m.settle()
	before := m.Mount.Counts().Snapshot()
	call()
	m.settle()
	diff := make(map[string]uint64)
	for name, n := range m.Mount.Counts().Snapshot() {
		if d := n - before[name]; d > 0 {
			diff[name] = d
		}
	}
	return waited(diff)
}

// settle waits until no request has come for a while.
func (m *mounted) settle() {
	quiet := 0
	last := m.Mount.Counts().Snapshot()
	for range 1000 {
		time.Sleep(5 * time.Millisecond)
		now := m.Mount.Counts().Snapshot()
		if maps.Equal(now, last) {
			if quiet++; quiet == 4 {
				return
			}
		} else {
			quiet = 0
		}
		last = now
	}
	m.t.Fatal("the kernel does not stop asking")
}

func (m *mounted) wantRequests(what string, call func(), want map[string]uint64) {
	m.t.Helper()
	got := m.requests(call)
	// Under the writeback cache the kernel keeps mtime and ctime itself. It sends
	// them when a file is closed or unlinked, if a clock tick has passed since
	// it last heard of them: one SETATTR more or less, as it happens.
	times := got["SETATTR"]
	delete(got, "SETATTR")
	if times > 1 || !maps.Equal(got, want) {
		m.t.Errorf("%s: got %v, want %v", what, got, want)
	} else {
		m.t.Logf("%-32s %v, times sent %d", what, got, times)
	}
}

// openOnly opens and closes without the stat calls that os.Open adds.
func (m *mounted) withFile(name string, flags int, call func(fd int)) {
	m.t.Helper()
	fd, err := unix.Open(filepath.Join(m.Dir, name), flags, 0o644)
	if err != nil {
		m.t.Fatal(err)
	}
	call(fd)
	if err := unix.Close(fd); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mounted) dropCaches() {
	m.t.Helper()
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		m.t.Skipf("caches cannot be dropped, which root can: %v", err)
	}
}

func TestRequestsForEachOperationAreThoseOfTheDesign(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("counts differ for ordinary users (default_permissions); root runs this")
	}
	// The kernel asks for security.capability once before it first writes to a
	// file; where there are no attributes at all it does not.
	t.Run("with xattrs", func(t *testing.T) { checkRequests(t, map[string]uint64{"GETXATTR": 1}, false) })
	t.Run("noxattr", func(t *testing.T) { checkRequests(t, nil, true) })
}

func checkRequests(t *testing.T, beforeWrite map[string]uint64, noXattr bool) {
	m := newVolume(t, volume.ModeFile)
	m.mount(func(o *fs.Options) { o.NoXattr = noXattr })
	page := make([]byte, 4096)
	create := func(name string) func() {
		return func() {
			m.withFile(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) {
				if _, err := unix.Write(fd, page); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	read := func(name string) func() {
		return func() {
			m.withFile(name, unix.O_RDONLY, func(fd int) {
				if n, err := unix.Read(fd, page); err != nil || n != len(page) {
					t.Fatal(n, err)
				}
			})
		}
	}
	stat := func(name string) func() {
		return func() {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(m.Dir, name), &st); err != nil {
				t.Fatal(err)
			}
		}
	}
	create("first")() // answers to what is only asked once: CREATE, OPEN, FLUSH, GETXATTR
	read("first")()

	written := map[string]uint64{"LOOKUP": 1, "MKNOD": 1, "WRITE": 1}
	maps.Copy(written, beforeWrite)
	m.wantRequests("create, write 4 KiB, close", create("a"), written)
	m.wantRequests("write again", func() {
		m.withFile("a", unix.O_WRONLY, func(fd int) {
			if _, err := unix.Write(fd, page); err != nil {
				t.Fatal(err)
			}
		})
	}, map[string]uint64{"WRITE": 1})
	// The kernel does not know how many blocks a written file takes up.
	m.wantRequests("first stat after a write", stat("a"), map[string]uint64{"GETATTR": 1})
	m.wantRequests("warm stat", stat("a"), map[string]uint64{})
	m.wantRequests("warm open, read, close", read("a"), map[string]uint64{})
	m.wantRequests("first stat after a read (atime)", stat("a"), map[string]uint64{"GETATTR": 1})
	m.dropCaches()
	m.wantRequests("cold open, read, close", read("a"), map[string]uint64{"LOOKUP": 1, "READ": 1})
	m.dropCaches()
	m.wantRequests("cold stat", stat("a"), map[string]uint64{"LOOKUP": 1})
	m.dropCaches()
	m.wantRequests("cold unlink", func() {
		if err := unix.Unlink(filepath.Join(m.Dir, "a")); err != nil {
			t.Fatal(err)
		}
	}, map[string]uint64{"LOOKUP": 1, "UNLINK": 1})
	asTar := map[string]uint64{"LOOKUP": 1, "MKNOD": 1, "WRITE": 1}
	if !noXattr {
		asTar["GETXATTR"] = 2 // chown asks, too
	}
	got := m.requests(func() {
		m.withFile("b", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, func(fd int) {
			_, err := unix.Write(fd, page)
			times := []unix.Timeval{{Sec: 1e9}, {Sec: 1e9}}
			if err = errors.Join(err, unix.Futimes(fd, times), unix.Fchown(fd, 1, 1), unix.Fchmod(fd, 0o640)); err != nil {
				t.Fatal(err)
			}
		})
	})
	// One more as above, if a tick has passed between creating and writing.
	if n := got["SETATTR"]; n != 3 && n != 4 {
		t.Errorf("a file made as tar does: %v, want 3 SETATTR", got)
	}
	delete(got, "SETATTR")
	if !maps.Equal(got, asTar) {
		t.Errorf("a file made as tar does: %v, want %v", got, asTar)
	}
	if n := m.Mount.Counts().Snapshot()["RELEASE"]; n != 0 {
		t.Errorf("%d RELEASE of files: the kernel has handles", n)
	}
}

func TestSequentialRequestsCarryAMiB(t *testing.T) {
	const MiB = 64
	m := newVolume(t, volume.ModeFile)
	m.mount()
	chunk := make([]byte, 1<<20)
	got := m.requests(func() {
		m.withFile("big", unix.O_CREAT|unix.O_WRONLY, func(fd int) {
			for range MiB {
				if _, err := unix.Write(fd, chunk); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	// Where the kernel begins to write out while the program still writes, a request may be cut short.
	if got["WRITE"] > MiB+MiB/8 {
		t.Errorf("writing %d MiB: %v", MiB, got)
	}
	m.dropCaches()
	got = m.requests(func() {
		m.withFile("big", unix.O_RDONLY, func(fd int) {
			for n := len(chunk); n > 0; {
				var err error
				if n, err = unix.Read(fd, chunk); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	// The window grows to its full size in a few steps.
	if got["READ"] > MiB+8 {
		t.Errorf("reading %d MiB: %v", MiB, got)
	}
	pages := rand.New(rand.NewPCG(1, 2)).Perm(MiB << 20 / 4096)[:2000]
	got = m.requests(func() {
		m.withFile("big", unix.O_WRONLY, func(fd int) {
			for _, i := range pages {
				if _, err := unix.Pwrite(fd, chunk[:4096], int64(i)*4096); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	if n := int(got["WRITE"]); n == 0 || n >= len(pages) || got["GETXATTR"] > 1 {
		t.Errorf("overwriting %d pages: %v", len(pages), got)
	}
}
