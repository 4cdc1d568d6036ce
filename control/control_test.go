package control

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type message struct {
	Text   string
	Secret []byte
}

// echo answers every message with itself, in capitals.
func echo(_ context.Context, c *Conn) {
	for {
		var m message
		if c.Receive(&m) != nil {
			return
		}
		m.Text = strings.ToUpper(m.Text)
		if c.Send(m) != nil {
			return
		}
	}
}

func listen(t *testing.T, dir, name string, handle func(context.Context, *Conn)) *Server {
	t.Helper()
	s, err := Listen(dir, name, handle)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ask(t *testing.T, path string, m message) message {
	t.Helper()
	c, err := Dial(context.Background(), path, os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.UID() != os.Geteuid() || c.PID() != os.Getpid() {
		t.Errorf("the peer is user %d, process %d", c.UID(), c.PID())
	}
	if err := c.Send(m); err != nil {
		t.Fatal(err)
	}
	var answer message
	if err := c.Receive(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestMessagesGoBothWaysBelowALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30)) // a socket address has 107 bytes
	s := listen(t, dir, "socket", echo)
	long := strings.Repeat("x", 100<<10)
	if got := ask(t, s.Path(), message{Text: long, Secret: []byte("secret")}); got.Text != strings.ToUpper(long) || string(got.Secret) != "secret" {
		t.Errorf("%d bytes came back, secret %q", len(got.Text), got.Secret)
	}
	if st, err := os.Lstat(s.Path()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", st.Mode(), err)
	}
	if st, err := os.Lstat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", st.Mode(), err)
	}
	if got := Sockets(dir); len(got) != 1 || got[0] != s.Path() {
		t.Errorf("sockets are %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := Sockets(dir); len(got) != 0 {
		t.Errorf("after Close there are %q", got)
	}
}

func TestAStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "socket")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	first := listen(t, dir, "socket", echo)
	if first.Path() != path {
		t.Fatalf("listens on %s, want %s", first.Path(), path)
	}
	ask(t, path, message{})
	second := listen(t, dir, "socket", echo)
	if second.Path() != path+"-2" {
		t.Fatalf("a second one listens on %s", second.Path())
	}
	ask(t, path, message{})
	ask(t, second.Path(), message{})

	// What is there is left alone if it is another's by now.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	third := listen(t, dir, "socket", echo)
	first.Close()
	ask(t, third.Path(), message{})
}

func TestADirectoryOfOthersIsRefused(t *testing.T) {
	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		if s, err := Listen(dir, "socket", echo); err == nil {
			s.Close()
			t.Errorf("listens in %s", dir)
		} else if !strings.Contains(err.Error(), dir) {
			t.Errorf("the error does not name the directory: %v", err)
		}
	}
}

func TestOnlyTheUserAndRootAreHeard(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	// Not t.TempDir: its parents are root's alone.
	dir, err := os.MkdirTemp("", "kmsfs-control-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	s := listen(t, dir, "socket", func(context.Context, *Conn) { asked <- struct{}{} })
	// Modes aside, so that SO_PEERCRED alone is in the way.
	for path, mode := range map[string]os.FileMode{dir: 0o755, s.Path(): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := readAs(65534, s.Path()); n != 0 {
		t.Errorf("another user reads %d bytes, %v", n, err)
	}
	s.Close() // and with it whoever was heard
	select {
	case <-asked:
		t.Error("another user was heard")
	default:
	}
}

func TestWhoeverListensMustBeTrusted(t *testing.T) {
	s := listen(t, filepath.Join(t.TempDir(), "run"), "socket", echo)
	if _, err := Dial(context.Background(), s.Path(), os.Geteuid()+1); err == nil {
		t.Error("this user is taken for another one")
	}
}

// readAs connects as another user, sends a line and waits for the end. The user
// is that of one thread, which is given up afterwards.
func readAs(uid int, path string) (n int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		keep := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			err = errno
			return
		}
		var fd int
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		if err = unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			n = -1
			return
		}
		_, _ = unix.Write(fd, []byte("{}\n"))
		n, err = unix.Read(fd, make([]byte, 1))
		n = max(n, 0)
	}()
	<-done
	return n, err
}

func TestCloseEndsAConversation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	s := listen(t, dir, "socket", echo)
	c, err := Dial(context.Background(), s.Path(), os.Geteuid())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Send(message{Text: "a"}); err != nil {
		t.Fatal(err)
	}
	var m message
	if err := c.Receive(&m); err != nil || m.Text != "A" {
		t.Fatalf("%q, %v", m.Text, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.Receive(&m); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAMessageThatIsTooLongOrNoneIsRefused(t *testing.T) {
	heard := make(chan error, 1)
	s := listen(t, filepath.Join(t.TempDir(), "run"), "socket", func(_ context.Context, c *Conn) {
		var m message
		heard <- c.Receive(&m)
	})
	for _, text := range []string{strings.Repeat("x", maxLine+10000), "nonsense\n", "{"} {
		c, err := net.Dial("unix", s.Path())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(text))
		c.(*net.UnixConn).CloseWrite()
		if err := <-heard; err == nil || err == io.EOF {
			t.Errorf("%.20q is understood: %v", text, err)
		}
		c.Close()
	}
}
