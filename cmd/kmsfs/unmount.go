package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// settleTime is how long unmount waits for the mount's process to end.
const settleTime = 30 * time.Second

func (a *app) unmountCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "unmount MOUNTPOINT",
		Aliases: []string{"umount"},
		Short:   "Unmount, and wait until all data is settled",
		Long: `Unmount ends the mount at MOUNTPOINT and returns when the process that served it
has made everything durable and is gone. A mount in use is refused.`,
		Args: positional("MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.unmount(cmd.Context(), args[0]) },
	}
}

func (a *app) unmount(ctx context.Context, path string) error {
	m, err := kmsfsMount(path)
	if err != nil {
		return err
	}
	real := m.mountpoint
	w := watch(m.device)
	defer w.close()
	if a.euid == 0 {
		err = unix.Unmount(real, unix.UMOUNT_NOFOLLOW)
	} else {
		err = fusermount(ctx, real)
	}
	if errors.Is(err, unix.EBUSY) {
		return withHint(fmt.Errorf("%s is in use", real),
			"see who uses it with fuser -vm %s; SIGTERM to its process detaches it and serves it until the last one leaves", real)
	}
	if err != nil {
		return fmt.Errorf("unmount %s: %w", real, err)
	}
	return w.wait(settleTime)
}

// fusermount unmounts as an ordinary user.
func fusermount(ctx context.Context, mountpoint string) error {
	c := exec.CommandContext(ctx, "fusermount3", "-u", "--", mountpoint)
	c.Env = append(c.Environ(), "LC_ALL=C")
	out, err := c.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, "busy") {
		return unix.EBUSY
	}
	if text != "" {
		return fmt.Errorf("%s (%w)", text, err)
	}
	return err
}
