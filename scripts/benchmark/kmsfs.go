package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// kmsfsSubject is kmsfs in a key mode, with a KMS that takes delay for a call.
func kmsfsSubject(name, mode string, delay time.Duration) subject {
	s := subject{
		name: name, kind: mounts, store: "kmsfs-" + mode,
		what:      fmt.Sprintf("kmsfs in key mode %s, %v a KMS call", mode, delay),
		onRequest: delay > 0,
		make:      func(ctx context.Context, p place) error { return makeVolume(ctx, p, volume.KeyMode(mode)) },
		mount: func(ctx context.Context, p place) (mount, error) {
			return startDaemon(ctx, p, delay)
		},
	}
	if delay > 0 {
		s.against = s.store
	}
	return s
}

// benchPassphrase protects nothing: keystore and volume are removed afterwards.
func benchPassphrase() ([]byte, error) { return []byte("a benchmark's passphrase"), nil }

func keystoreOptions(state string) local.Options {
	return local.Options{
		Path: filepath.Join(state, "keystore.json"), Passphrase: benchPassphrase,
		KDF: &local.KDFParams{Time: 1, MemoryKiB: 64, Threads: 1},
	}
}

func makeVolume(ctx context.Context, p place, mode volume.KeyMode) error {
	store, err := local.Create(ctx, keystoreOptions(p.state))
	if err != nil {
		return err
	}
	defer store.Close()
	if _, err := store.EnsureDefaultKey(ctx); err != nil {
		return err
	}
	_, err = volume.Init(ctx, p.backing, volume.InitOptions{
		Keys: []kmsprovider.KeyURI{{Provider: "local", KeyID: "alias/kmsfs"}}, Mode: mode,
		Providers: registry(store), StateDir: p.state,
	})
	return err
}

func registry(p kmsprovider.Provider) *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	r.Register("local", func(context.Context) (kmsprovider.Provider, error) { return p, nil })
	return r
}

// daemonMount is a volume served by a process of its own.
type daemonMount struct {
	daemonProcess
	out *bufio.Reader
}

func startDaemon(ctx context.Context, p place, delay time.Duration) (mount, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// Not by CommandContext, which kills: a killed daemon leaves a dead mount.
	cmd := exec.Command(self, daemonVerb, "-delay", delay.String(), "-state", p.state, p.backing, p.mountpoint)
	cmd.Env = append(os.Environ(), daemonEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's SIGINT is ours alone
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	m := &daemonMount{daemonProcess{p.mountpoint, cmd}, bufio.NewReader(out)}
	if line, err := m.out.ReadString('\n'); line != ready+"\n" {
		return nil, errors.Join(fmt.Errorf("mount %s: the daemon says %q, %v", p.backing, line, err), cmd.Wait())
	}
	return m, ctx.Err()
}

func (m *daemonMount) unmount() (u usage, err error) {
	peak := m.peak()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return u, fmt.Errorf("stop daemon: %w", err)
	}
	b, err := io.ReadAll(m.out)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &u)
	}
	if err = errors.Join(err, m.cmd.Wait()); err != nil {
		_ = unix.Unmount(m.point, unix.MNT_DETACH)
		return u, fmt.Errorf("serve %s: %w", m.point, err)
	}
	u.Peak, u.CPU = peak, m.cpu()
	return u, nil
}
