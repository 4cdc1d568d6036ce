package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// peer is a file system of others, served by a program that stays in the foreground.
type peer struct {
	name, what string
	program    string
	slow       bool // measured on request only
	// init has the arguments that make an empty volume; nil where mounting does.
	init  func(p place) []string
	serve func(p place) []string
	env   func(p place) []string
}

const (
	peerPassphrase = "benchmark"
	passphraseFile = "passphrase" // in place.state; it is given on standard input, too
)

// peers are those whose programs there are. current is a gocryptfs newer than
// the installed one; loopback is the example of go-fuse. Both may be "".
func peers(loopback, current string) (there []peer) {
	gocryptfs := func(name, program string) peer {
		pass := func(p place) string { return filepath.Join(p.state, passphraseFile) }
		return peer{
			name: name, program: program, what: "gocryptfs",
			init: func(p place) []string {
				return []string{"-init", "-q", "-scryptn", "10", "-passfile", pass(p), p.backing}
			},
			serve: func(p place) []string { return []string{"-fg", "-q", "-passfile", pass(p), p.backing, p.mountpoint} },
		}
	}
	for _, p := range []peer{
		{
			name: "loopback", program: loopback, what: "the example of go-fuse, unencrypted, with kernel passthrough as root",
			serve: func(p place) []string { return []string{"-q", p.mountpoint, p.backing} },
		},
		gocryptfs("gocryptfs", "gocryptfs"),
		gocryptfs("gocryptfs-current", current),
		{
			name: "securefs", program: "securefs", what: "securefs in its default format",
			init: func(p place) []string {
				return []string{"create", "--rounds", "1", "--pass", peerPassphrase, p.backing}
			},
			serve: func(p place) []string { return []string{"mount", "--pass", peerPassphrase, p.backing, p.mountpoint} },
		},
		{
			name: "encfs", program: "encfs", what: "EncFS as by --standard", slow: true,
			serve: func(p place) []string { return []string{"-f", "--standard", "--stdinpass", p.backing, p.mountpoint} },
		},
		{
			name: "cryfs", program: "cryfs", what: "CryFS", slow: true,
			serve: func(p place) []string { return []string{"-f", p.backing, p.mountpoint} },
			env: func(p place) []string {
				return []string{"CRYFS_FRONTEND=noninteractive", "CRYFS_NO_UPDATE_CHECK=true", "HOME=" + p.state}
			},
		},
	} {
		if path, err := exec.LookPath(p.program); p.program != "" && err == nil {
			p.program = path
			there = append(there, p)
		}
	}
	return there
}

func (p peer) subject() subject {
	return subject{
		name: p.name, what: p.what, kind: mounts, store: p.name, onRequest: p.slow,
		make: func(ctx context.Context, at place) error {
			if err := os.WriteFile(filepath.Join(at.state, passphraseFile), []byte(peerPassphrase+"\n"), 0o600); err != nil {
				return err
			}
			if p.init == nil {
				return nil
			}
			return command(ctx, nil, p.program, p.init(at)...)
		},
		mount: func(ctx context.Context, at place) (mount, error) { return p.start(ctx, at) },
	}
}

// start has the peer serve, and waits for it.
func (p peer) start(ctx context.Context, at place) (*peerMount, error) {
	var before, now unix.Stat_t
	if err := unix.Stat(at.mountpoint, &before); err != nil {
		return nil, fmt.Errorf("look at mount point: %w", err)
	}
	// Not by CommandContext, which kills: a killed daemon leaves a dead mount.
	cmd := exec.Command(p.program, p.serve(at)...)
	cmd.Env = os.Environ()
	if p.env != nil {
		cmd.Env = append(cmd.Env, p.env(at)...)
	}
	cmd.Stdin = strings.NewReader(peerPassphrase + "\n")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's SIGINT is ours alone
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	m := &peerMount{daemonProcess{at.mountpoint, cmd}, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(m.ended) }()
	for {
		if err := unix.Stat(at.mountpoint, &now); err == nil && now.Dev != before.Dev {
			return m, nil
		}
		select {
		case <-m.ended:
			return nil, fmt.Errorf("start %s: it has ended, %v", p.name, cmd.ProcessState)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), cmd.Process.Signal(syscall.SIGTERM))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// peerMount is served by a program that ends when it is unmounted.
type peerMount struct {
	daemonProcess
	ended chan struct{}
}

func (m *peerMount) unmount() (u usage, err error) {
	u.Peak = m.peak()
	if err := unix.Unmount(m.point, 0); err != nil {
		_ = unix.Unmount(m.point, unix.MNT_DETACH)
		return u, fmt.Errorf("unmount %s: %w", m.point, err)
	}
	<-m.ended
	u.CPU = m.cpu()
	return u, nil
}
