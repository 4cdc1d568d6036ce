package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// presence is a socket that ends with the process that serves a mount. Who
// unmounts connects to it first, and knows by its end that all data is where it
// belongs, whatever name the mount shows as its source. Nothing can be asked
// over it: connections wait to be accepted until the mount is gone. Its name is
// abstract and made of the mount's device number, which no other mount has at
// the time.
type presence struct {
	listener *net.UnixListener // nil if there is none
	watchers []int             // descriptors, once the mount is gone
}

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
	if err == nil {
		p.listener, err = listen(m.device)
	}
	if err != nil {
		log.Debug("unmount will not wait for this mount", "error", err)
	}
	return p
}

// listen waits a little where the name is taken: the kernel gives a device
// number away as soon as its mount is gone, and that one's process may have to
// notice yet.
func listen(device string) (*net.UnixListener, error) {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
		l, err := net.ListenUnix("unix", presenceName(device))
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(deadline) {
			return l, err
		}
	}
}

// gone gives the name free; who has connected goes on waiting. To be called as
// soon as the mount is gone.
func (p *presence) gone() {
	if p.listener == nil {
		return
	}
	if raw, err := p.listener.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			for {
				c, _, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
				if err == nil {
					p.watchers = append(p.watchers, c)
				} else if err != unix.EINTR && err != unix.ECONNABORTED {
					return
				}
			}
		})
	}
	p.listener.Close()
}

// finish tells the watchers how the mount ended. That it has ended they see by
// the process's end, which closes their connections.
func (p *presence) finish(err error) {
	if err == nil {
		return
	}
	for _, c := range p.watchers {
		_ = unix.Sendto(c, []byte(err.Error()), unix.MSG_NOSIGNAL, nil)
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
