package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kmsfs/control"
)

// lockTimeout is how long a mount may take to lock or unlock: it may have much to
// write back, or ask a slow KMS.
const lockTimeout = 10 * time.Minute

func (a *app) lockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lock MOUNTPOINT",
		Short: "Make a mount forget its keys",
		Long: `Lock has the mount at MOUNTPOINT write back everything, and forget all keys and
whatever the kernel caches of it. Until kmsfs unlock every access fails with
ENOKEY (required key not available). It can be unmounted all the same.`,
		Args: positional("MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.lock(cmd.Context(), args[0]) },
	}
}

func (a *app) unlockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "unlock MOUNTPOINT",
		Short: "Give a locked mount its keys again",
		Long: `Unlock has the mount at MOUNTPOINT ask the KMS for its key again. The passphrase of
a keystore comes from where kmsfs mount has it from, or is asked for.`,
		Args: positional("MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.unlock(cmd.Context(), args[0]) },
	}
}

// lock locks a mount. The kernel is called upon to write back first: it does so
// in large requests, and sends the times that it keeps.
func (a *app) lock(ctx context.Context, path string) error {
	socket, s, err := a.findControl(ctx, path)
	if err != nil {
		return err
	}
	var syncErr error
	if s.State == stateUnlocked {
		_, syncErr = syncMount(s.Mountpoint)
	}
	if err := a.command(ctx, socket, s, "lock", nil); err != nil {
		return err
	}
	if syncErr != nil {
		return fmt.Errorf("%s is locked, but not all could be written: %w", s.Mountpoint, syncErr)
	}
	return nil
}

// syncMount writes back what the kernel keeps of a mount, if this user may enter it.
func syncMount(mountpoint string) (entered bool, err error) {
	fd, err := unix.Open(mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil // the mount itself will do
	}
	defer unix.Close(fd)
	return true, unix.Syncfs(fd)
}

func (a *app) unlock(ctx context.Context, path string) error {
	if err := harden(); err != nil {
		return err
	}
	socket, s, err := a.findControl(ctx, path)
	if err != nil {
		return err
	}
	return a.command(ctx, socket, s, "unlock", func(keystore string) ([]byte, error) {
		passphrase, err := a.passphraseFor(keystore)
		if err != nil {
			return nil, err
		}
		return passphrase(ctx, askExisting)
	})
}

// command has the mount of s do something, and gives it a passphrase if it asks.
func (a *app) command(ctx context.Context, socket string, s *mountStatus, verb string, passphrase func(keystore string) ([]byte, error)) error {
	c, err := control.Dial(ctx, socket, s.UID)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(lockTimeout))
	reply, err := converseOver(c, controlRequest{Verb: verb})
	for err == nil && reply.Keystore != "" && passphrase != nil {
		var secret []byte
		if secret, err = passphrase(reply.Keystore); err != nil {
			return err
		}
		reply, err = converseOver(c, passphraseMessage{secret})
		clear(secret)
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil && reply.Keystore != "" {
		err = errors.New("it asks for a passphrase")
	}
	return err
}

// lockUp is the mount's side of lock.
func (t *attendant) lockUp() error {
	if !t.changing.TryLock() {
		return errors.New("the mount is being locked or unlocked")
	}
	defer t.changing.Unlock()
	t.passphrase.set(nil)
	return t.volume.Lock()
}

// unlockBy is the mount's side of unlock: who is connected is asked for the
// passphrase, if a keystore has to be opened.
func (t *attendant) unlockBy(ctx context.Context, c *control.Conn) error {
	if !t.changing.TryLock() {
		return errors.New("the mount is being locked or unlocked")
	}
	defer t.changing.Unlock()
	t.passphrase.set(func(context.Context, askFor) ([]byte, error) {
		if err := c.Send(controlReply{Keystore: t.request.Keystore}); err != nil {
			return nil, err
		}
		var m passphraseMessage
		if err := c.Receive(&m); err != nil {
			return nil, fmt.Errorf("ask for the passphrase: %w", err)
		}
		return m.Passphrase, nil
	})
	defer t.passphrase.set(nil)
	err := t.openKeys(ctx)
	if err == nil {
		err = t.volume.Unlock(ctx)
	}
	if err != nil {
		err = errors.Join(err, t.keys.Reset())
	}
	return err
}
