package kmsserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrAddress: the address is none to listen on.
var ErrAddress = errors.New("not an address to listen on")

// unixPrefix marks the path of a Unix socket.
const unixPrefix = "unix:"

// Listen listens on a loopback address, 127.0.0.1:4599, localhost:0 or
// [::1]:4599, or on a Unix socket, unix:PATH, with mode 0600. A socket that
// nobody serves any more is replaced. Everything else is ErrAddress.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	l, err := listen(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return listenUnix(ctx, path)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: want 127.0.0.1:PORT or unix:PATH", ErrAddress)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if !isLoopback(host) {
		return nil, fmt.Errorf("%w: it is not a loopback address, and the protocol is not encrypted", ErrAddress)
	}
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, port))
}

func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if path == "" {
		return nil, fmt.Errorf("%w: unix: and no path", ErrAddress)
	}
	l, err := bindUnix(ctx, path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	info, statErr := os.Lstat(path)
	if statErr != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%w: something else than a socket is there", ErrAddress)
	}
	c, dialErr := new(net.Dialer).DialContext(ctx, "unix", path)
	if dialErr == nil {
		c.Close()
		return nil, err
	}
	if !errors.Is(dialErr, unix.ECONNREFUSED) {
		return nil, errors.Join(err, dialErr)
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return bindUnix(ctx, path)
}

// bindUnix makes the socket with mode 0600 from the start.
func bindUnix(ctx context.Context, path string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// Linux makes the socket's file with the mode of the unbound socket.
		if controlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	return config.Listen(ctx, "unix", path)
}
