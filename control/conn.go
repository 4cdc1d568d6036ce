package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds a message, in bytes.
const maxLine = 1 << 20

// Conn is one end of a connection.
type Conn struct {
	c    *net.UnixConn
	peer unix.Ucred
	buf  []byte // received, and not taken yet
}

// Dial connects to the socket at path. Whoever listens there must be one of the
// users trusted with it.
func Dial(ctx context.Context, path string, trusted ...int) (*Conn, error) {
	name, done, err := short(path)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	defer done()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", name)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", path, errors.Unwrap(err))
	}
	conn, err := newConn(c.(*net.UnixConn))
	if err == nil && !conn.from(trusted) {
		err = fmt.Errorf("user %d listens there", conn.peer.Uid)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	return conn, nil
}

func newConn(c *net.UnixConn) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var peer *unix.Ucred
	if ctlErr := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); ctlErr != nil {
		return nil, ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("ask who is connected: %w", err)
	}
	return &Conn{c: c, peer: *peer}, nil
}

// from tells whether the peer is one of users.
func (c *Conn) from(users []int) bool {
	for _, uid := range users {
		if int(c.peer.Uid) == uid {
			return true
		}
	}
	return false
}

// UID and PID are the peer's, as the kernel vouches for.
func (c *Conn) UID() int { return int(c.peer.Uid) }
func (c *Conn) PID() int { return int(c.peer.Pid) }

// Send sends a message, and wipes what it made of it.
func (c *Conn) Send(message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	line = append(line, '\n')
	defer clear(line)
	if _, err := c.c.Write(line); err != nil {
		return fmt.Errorf("send message: %w", err)
	}
	return nil
}

// Receive waits for a message, and wipes the line that it came in. It is io.EOF
// if the peer has nothing more to say.
func (c *Conn) Receive(message any) error {
	for {
		if i := bytes.IndexByte(c.buf, '\n'); i >= 0 {
			line := c.buf[:i]
			c.buf = c.buf[i+1:]
			defer clear(line)
			if err := json.Unmarshal(line, message); err != nil {
				return fmt.Errorf("understand message: %w", err)
			}
			return nil
		}
		if len(c.buf) > maxLine {
			return errors.New("receive message: it is too long")
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads more. A buffer that grows leaves no copy behind.
func (c *Conn) fill() error {
	if cap(c.buf)-len(c.buf) < 4096 {
		grown := append(make([]byte, 0, 2*len(c.buf)+8192), c.buf...)
		clear(c.buf)
		c.buf = grown
	}
	n, err := c.c.Read(c.buf[len(c.buf):cap(c.buf)])
	c.buf = c.buf[:len(c.buf)+n]
	switch {
	case n > 0:
		return nil
	case err == io.EOF && len(c.buf) == 0:
		return io.EOF
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return fmt.Errorf("receive message: %w", err)
}

// SetDeadline bounds what follows; the zero time is no bound.
func (c *Conn) SetDeadline(t time.Time) { _ = c.c.SetDeadline(t) }

// Close ends the connection.
func (c *Conn) Close() error {
	clear(c.buf)
	return c.c.Close()
}
