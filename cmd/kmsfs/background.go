package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// linkFD is the daemon's end of the socket pair.
const linkFD = 3

// background starts a daemon for the mount, and returns once that serves.
func (a *app) background(ctx context.Context, r *mountRequest, passphrase passphraseSource) error {
	ours, theirs, err := socketPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	// Its arguments are for people who look at processes; it reads the request.
	c := exec.Command("/proc/self/exe", "mount", "--daemon", "--", r.Backing, r.Mountpoint)
	c.Args[0] = "kmsfs"
	c.Dir = "/"
	c.ExtraFiles = []*os.File{theirs}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if f, ok := a.stderr.(*os.File); ok {
		c.Stderr = f // until it serves
	}
	err = startWithLess(c)
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Process.Signal(syscall.SIGTERM) })
	err = a.converse(ctx, link{ours}, r, passphrase)
	if err == nil && stop() {
		return c.Process.Release()
	}
	stop()
	ours.Close()
	exit := c.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		err = fmt.Errorf("the daemon ended before the mount served: %v", exit)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted: nothing is mounted")
	}
	return err
}

// converse does the parent's part until the mount serves.
func (a *app) converse(ctx context.Context, l link, r *mountRequest, passphrase passphraseSource) error {
	if err := l.sendJSON(msgRequest, r); err != nil {
		return err
	}
	for {
		m, payload, err := l.receive()
		if err != nil {
			return err
		}
		switch {
		case m == msgReady:
			return nil
		case m == msgAsk && len(payload) == 1:
			secret, err := passphrase(ctx, askFor(payload[0]))
			if err != nil {
				return err
			}
			err = l.send(msgPassphrase, secret)
			clear(secret)
			if err != nil {
				return err
			}
		case m == msgFailed:
			var f failure
			if err := json.Unmarshal(payload, &f); err != nil {
				return fmt.Errorf("understand the daemon: %w", err)
			}
			return f.err()
		default:
			return fmt.Errorf("understand the daemon: message %q", byte(m))
		}
	}
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "link to daemon"), os.NewFile(uintptr(fds[1]), "link to parent"), nil
}
