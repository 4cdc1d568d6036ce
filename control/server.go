package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server listens on a mount's socket.
type Server struct {
	path     string
	ino      uint64 // of the socket, to remove no other
	listener *net.UnixListener
	cancel   context.CancelFunc
	running  sync.WaitGroup // accept, and what it started
}

const (
	newSuffix = ".new" // of a socket that is not in its place yet

	// requestTimeout is how long a connection may stay silent before it has
	// asked for anything.
	requestTimeout = 10 * time.Second
	maxHandlers    = 16
)

// Listen serves connections at dir/name until Close; handle is called for each
// in a goroutine of its own, and need not close it. The directory is made if it
// is missing. A socket that nobody listens on any more is replaced; where
// somebody does, as another read-only mount of the volume may, the name gets a
// number.
func Listen(dir, name string, handle func(ctx context.Context, c *Conn)) (*Server, error) {
	if err := makeDirectory(dir); err != nil {
		return nil, fmt.Errorf("listen for control: %w", err)
	}
	path := filepath.Join(dir, name)
	for i := 2; inUse(path); i++ {
		path = filepath.Join(dir, fmt.Sprintf("%s-%d", name, i))
	}
	s := &Server{path: path}
	if err := s.bind(); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(func() { s.accept(ctx, handle) })
	return s, nil
}

// inUse tells whether somebody listens at path.
func inUse(path string) bool {
	name, done, err := short(path)
	if err != nil {
		return false
	}
	defer done()
	c, err := net.Dial("unix", name)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// bind makes the socket under a name of its own, and moves it to its place: at
// no time is there none.
func (s *Server) bind() error {
	fresh := fmt.Sprintf("%s.%d%s", s.path, os.Getpid(), newSuffix)
	_ = os.Remove(fresh)
	name, done, err := short(fresh)
	if err != nil {
		return err
	}
	defer done()
	s.listener, err = net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: name})
	if err != nil {
		return err
	}
	s.listener.SetUnlinkOnClose(false)
	var st unix.Stat_t
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = unix.Lstat(fresh, &st)
	}
	if err == nil {
		err = os.Rename(fresh, s.path)
	}
	if err != nil {
		s.listener.Close()
		_ = os.Remove(fresh)
		return err
	}
	s.ino = st.Ino
	return nil
}

// Path is where the socket lies.
func (s *Server) Path() string { return s.path }

// accept takes connections of those who may ask.
func (s *Server) accept(ctx context.Context, handle func(context.Context, *Conn)) {
	free := make(chan struct{}, maxHandlers)
	for {
		c, err := s.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no descriptors, for one
			continue
		}
		conn, err := newConn(c)
		if err != nil || !conn.from([]int{0, os.Geteuid()}) {
			c.Close()
			continue
		}
		free <- struct{}{}
		s.running.Go(func() {
			defer func() { <-free }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.c.Close() })()
			conn.SetDeadline(time.Now().Add(requestTimeout))
			handle(ctx, conn)
		})
	}
}

// Close stops listening, ends the connections there are, and removes the socket.
func (s *Server) Close() error {
	var st unix.Stat_t
	if unix.Lstat(s.path, &st) == nil && st.Ino == s.ino {
		_ = os.Remove(s.path)
	}
	err := s.listener.Close()
	s.cancel()
	s.running.Wait()
	return err
}
