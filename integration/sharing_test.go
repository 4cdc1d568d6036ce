package integration

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func init() { processes["mmap"] = mmapProcess }

// peer is another process that answers each line with one.
type peer struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startPeer(t testing.TB, name string, args ...string) *peer {
	t.Helper()
	p := &peer{t: t, cmd: process(t, name, args...)}
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	p.cmd.Stderr = testWriter{t}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *peer) ask(question string) string {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, question); err != nil {
		p.t.Fatal(err)
	}
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("no answer to %q: %v", question, err)
	}
	return strings.TrimSpace(line)
}

func (p *peer) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// serve answers lines of stdin until it ends.
func serve(answer func(question string) string) int {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		fmt.Println(answer(in.Text()))
	}
	return 0
}

const mapped = 3*4096 + 100

// mmapProcess maps a file and reads or writes through the mapping.
func mmapProcess(args []string) int {
	flags := unix.MAP_SHARED
	if args[1] == "private" {
		flags = unix.MAP_PRIVATE
	}
	fd, err := unix.Open(args[0], unix.O_RDWR, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m, err := unix.Mmap(fd, 0, mapped, unix.PROT_READ|unix.PROT_WRITE, flags)
	unix.Close(fd) // the mapping alone keeps the file
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return serve(func(question string) (answer string) {
		debug.SetPanicOnFault(true)
		defer func() {
			if r := recover(); r != nil {
				answer = "SIGBUS"
			}
		}()
		var off int
		var text string
		switch n, _ := fmt.Sscanf(question, "%d %s", &off, &text); n {
		case 2:
			copy(m[off:], text)
			return "written"
		case 1:
			return string(bytes.TrimRight(m[off:min(off+20, mapped)], "\x00"))
		}
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return err.Error()
		}
		return "synced"
	})
}

func TestMappingsAreSharedBetweenProcessesAndPrivateOnesAreNot(t *testing.T) {
	t.Parallel()
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		name := filepath.Join(d.Dir, "mapped")
		if err := os.WriteFile(name, make([]byte, mapped), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		read := func(off int64) string {
			t.Helper()
			b := make([]byte, 6)
			if _, err := f.ReadAt(b, off); err != nil {
				t.Fatal(err)
			}
			return string(bytes.TrimRight(b, "\x00"))
		}
		want := func(got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		one, two := startPeer(t, "mmap", name, "shared"), startPeer(t, "mmap", name, "shared")
		private := startPeer(t, "mmap", name, "private")
		one.ask("4094 shared")
		want(read(4094), "shared")
		want(two.ask("4094"), "shared")
		want(private.ask("4094"), "shared")
		if _, err := f.WriteAt([]byte("by write"), 9000); err != nil {
			t.Fatal(err)
		}
		want(one.ask("9000"), "by write")
		private.ask("100 secret")
		want(private.ask("100"), "secret")
		want(one.ask("100"), "")
		want(read(100), "")
		want(two.ask("sync"), "synced")
		one.ask("12300 late")
		one.kill() // neither msync nor munmap
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		two.kill()
		private.kill()

		d.remount()
		if f, err = os.OpenFile(name, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		want(read(4094), "shared")
		want(read(9000), "by wri")
		want(read(12300), "late")
		want(read(100), "")
		// Beyond the end there is nothing to map, which the owner of the mapping
		// is told; everybody else goes on.
		one = startPeer(t, "mmap", name, "shared")
		want(one.ask("4094"), "shared")
		if err := f.Truncate(4095); err != nil {
			t.Fatal(err)
		}
		want(one.ask("9000"), "SIGBUS")
		want(one.ask("9000 x"), "SIGBUS")
		want(one.ask("4000"), "")
		want(one.ask("4000 x"), "written")
		if err := f.Truncate(mapped); err != nil {
			t.Fatal(err)
		}
		want(one.ask("9000"), "")
		want(one.ask("9000 again"), "written")
		want(read(9000), "again")
		want(read(4000), "x")
		want(read(4094), "s") // what was cut off is gone
		one.kill()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// aligned is memory as O_DIRECT wants it.
func aligned(t testing.TB, n int) []byte {
	t.Helper()
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(b) })
	return b
}

func TestDirectAndCachedAccessSeeTheSameData(t *testing.T) {
	t.Parallel()
	asRootAndAsUser(t, lightWays(), func(t *testing.T, d *daemon) {
		const size = 1 << 20
		name := filepath.Join(d.Dir, "direct")
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_DIRECT, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		model := make([]byte, size)
		for i := range model {
			model[i] = byte(i>>8) ^ byte(i)
		}
		buf := aligned(t, size)
		copy(buf, model)
		if n, err := unix.Pwrite(fd, buf, 0); n != size || err != nil {
			t.Fatal(n, err)
		}
		same := func() {
			t.Helper()
			cached := make([]byte, len(model))
			if _, err := f.ReadAt(cached, 0); err != nil || !bytes.Equal(cached, model) {
				t.Errorf("read through the cache: %v, or other data", err)
			}
			clear(buf)
			if n, err := unix.Pread(fd, buf, 0); n != len(model) || err != nil || !bytes.Equal(buf[:n], model) {
				t.Errorf("read directly: %d, %v, or other data", n, err)
			}
		}
		same()
		for off := 0; off < size; off += 100_000 { // dirty pages under direct writes
			copy(model[off:], "through the cache")
			if _, err := f.WriteAt([]byte("through the cache"), int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		same()
		for _, off := range []int{0, 512, 4096, 65536 + 1024, size - 512} {
			for i := range 512 {
				buf[i] = byte(off>>9) + 7
			}
			copy(model[off:], buf[:512])
			if n, err := unix.Pwrite(fd, buf[:512], int64(off)); n != 512 || err != nil {
				t.Fatal(n, err)
			}
		}
		same()
		model = model[:size-1000]
		if err := f.Truncate(int64(len(model))); err != nil {
			t.Fatal(err)
		}
		same()
		if n, err := unix.Pread(fd, buf[:4096], size); n != 0 || err != nil {
			t.Errorf("read behind the end: %d, %v", n, err)
		}
	})
}

// entry is one of a directory, with where the next one begins.
type entry struct {
	name string
	next int64
}

// entries reads on from where a directory is; nothing at the end.
func entries(t testing.TB, fd int, buf []byte) []entry {
	t.Helper()
	n, err := unix.ReadDirent(fd, buf)
	if err != nil {
		t.Fatal(err)
	}
	var out []entry
	for b := buf[:n]; len(b) > 0; {
		// getdents64(2): ino u64, off u64, length u16, type u8, name, NUL.
		length := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:length], []byte{0})
		out = append(out, entry{string(name), int64(binary.NativeEndian.Uint64(b[8:]))})
		b = b[length:]
	}
	return out
}
