package control

import (
	"bytes"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a Conn and the other end of it.
func pair(t testing.TB) (*Conn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end of a pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	conn, err := newConn(ends[0])
	if err != nil {
		t.Fatal(err)
	}
	return conn, ends[1]
}

// received is how many messages come out of b, and the error at the end.
func received(t testing.TB, b []byte) (n int, err error) {
	c, other := pair(t)
	defer c.Close()
	go func() {
		_, _ = other.Write(b)
		other.Close()
	}()
	for {
		var message struct {
			Verb string
			N    int
			Keys map[string][]byte
		}
		if err := c.Receive(&message); err != nil {
			return n, err
		}
		n++
	}
}

func FuzzReceive(f *testing.F) {
	for seed, want := range map[string]int{
		"{\"Verb\":\"status\"}\n{\"N\":5}\n":  2,
		"{\"Keys\":{\"a\":\"AAAA\"}}\n{\"N\"": 1,
		"{\"N\":\"x\"}\n":                     0,
		"\n":                                  0,
		"no newline":                          0,
		"":                                    0,
	} {
		if n, err := received(f, []byte(seed)); n != want || err == nil {
			f.Fatalf("%d messages in %q, %v", n, seed, err)
		}
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, _ := received(t, b); n > bytes.Count(b, []byte{'\n'}) {
			t.Fatalf("%d messages in %q", n, b)
		}
	})
}

func TestAMessageWithoutEndIsRefused(t *testing.T) {
	if _, err := received(t, bytes.Repeat([]byte{'x'}, 4*maxLine)); err == nil || err.Error() != "receive message: it is too long" {
		t.Errorf("got %v", err)
	}
}
