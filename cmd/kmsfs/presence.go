package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// presence is a socket that ends with the process that serves a mount. Who
// unmounts connects to it first, and knows by its end that all data is where it
// belongs, whatever name the mount shows as its source. Nothing can be asked
// over it. Its name is abstract and made of the mount's device number, which no
// other mount has at the time.
type presence struct {
	mu       sync.Mutex
	watchers []net.Conn
}

// maxWatchers bounds the connections that a presence keeps.
const maxWatchers = 64

func presenceName(device string) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: "@kmsfs/mount/" + device}
}

// announce makes the presence of a mount. A mount can do without: unmount then
// does not wait.
func announce(mountpoint string, log *slog.Logger) *presence {
	p := &presence{}
	m, ok, err := findMount(mountpoint)
	if err == nil && !ok {
		err = errors.New("it is not mounted")
	}
	var l *net.UnixListener
	if err == nil {
		l, err = net.ListenUnix("unix", presenceName(m.device))
	}
	if err != nil {
		log.Debug("unmount will not wait for this mount", "error", err)
		return p
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.add(c)
		}
	}()
	return p
}

func (p *presence) add(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.watchers) == maxWatchers { // the oldest has most likely given up
		p.watchers[0].Close()
		p.watchers = p.watchers[1:]
	}
	p.watchers = append(p.watchers, c)
}

// finish tells the watchers how the mount ended. The process's end tells them
// that it has.
func (p *presence) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.watchers {
		if err != nil {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(c, err.Error())
		}
	}
}

// watcher waits for the end of a mount's process.
type watcher struct {
	conn *net.UnixConn
	pid  int
}

// watch connects to the presence of the mount on device; nil if there is none
// that could be trusted.
func watch(device string) *watcher {
	c, err := net.DialUnix("unix", nil, presenceName(device))
	if err != nil {
		return nil
	}
	raw, err := c.SyscallConn()
	var peer *unix.Ucred
	if err == nil {
		_ = raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	}
	if err != nil || peer == nil || (os.Geteuid() != 0 && peer.Uid != 0 && int(peer.Uid) != os.Geteuid()) {
		c.Close()
		return nil
	}
	return &watcher{conn: c, pid: int(peer.Pid)}
}

// wait returns when the process is gone: with its error, if it had one.
func (w *watcher) wait(timeout time.Duration) error {
	if w == nil {
		return nil
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(timeout))
	failure, err := io.ReadAll(io.LimitReader(w.conn, 64<<10))
	switch {
	case len(failure) > 0:
		return fmt.Errorf("unmounted, but not cleanly: %s", failure)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("unmounted, but process %d has not finished after %v", w.pid, timeout)
	}
	return nil // a reset is an end, too
}

func (w *watcher) close() {
	if w != nil {
		w.conn.Close()
	}
}
