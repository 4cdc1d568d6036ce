package main

import (
	"context"

	"github.com/spf13/cobra"

	"kmsfs/volume"
)

func (a *app) mountCommand() *cobra.Command {
	var f mountFlags
	var options []string
	var daemon bool
	c := &cobra.Command{
		Use:   "mount [flags] BACKING MOUNTPOINT",
		Short: "Mount the volume in BACKING",
		Long: `Mount shows the volume in BACKING decrypted at MOUNTPOINT. It returns once the
mount serves; with --foreground it stays, and logs to stderr. SIGTERM and SIGINT
unmount: a mount in use is detached, and served until its last user leaves.

Options for -o:
  ro, rw                read-only or not
  allow_other           let other users in
  shared                let other hosts mount the volume, too, with the same option
  nonempty              hide what is in MOUNTPOINT
  open                  have every open(2) asked for
  writeback=off         have every write(2) done before it returns
  noxattr               no extended attributes, hence no ACLs
  strict                log blocks before they are overwritten: a power cut tears none
  latency=low           keep processors from deep sleep while requests flow (root)
  acl                   enforce POSIX ACLs (allow_other does, too)
  keystore=FILE, passphrase-file=FILE, age-identity=FILE, kms-deadline=DURATION,
  key-ttl=DURATION, fingerprint=F, fsname=NAME, idle=DURATION
                        as the flags of these names
  nosuid, suid, nodev, dev, noexec, exec, noatime, atime, relatime, strictatime,
  nodiratime, diratime, sync, async, dirsync, default_permissions
                        for the kernel
  remount               give the mount at MOUNTPOINT these options for the kernel
What only mount(8) and systemd care for (x-*, nofail, _netdev, user, noauto, …) is ignored.`,
		Args: positional("BACKING", "MOUNTPOINT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if daemon {
				return a.daemon(cmd.Context())
			}
			o, err := parseMountOptions(options, false)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("key-ttl") && o.keyTTL != nil {
				f.keyTTL = *o.keyTTL
			}
			return a.mount(cmd.Context(), args[0], args[1], f, o)
		},
	}
	flags := c.Flags()
	flags.BoolVarP(&f.foreground, "foreground", "f", false, "stay in the foreground and log to stderr")
	flags.BoolVar(&f.readOnly, "ro", false, "mount read-only")
	flags.BoolVar(&f.allowOther, "allow-other", false, "let other users in; the kernel checks their permissions")
	flags.BoolVar(&f.shared, "shared", false, "let others mount the volume, too, who say --shared: on this host or on others that see BACKING")
	flags.StringVar(&f.fingerprint, "fingerprint", "", "refuse the volume unless its fingerprint is `F`")
	flags.BoolVar(&f.trustNew, "trust-new", false, "accept a volume other than the one that this host knows in BACKING")
	flags.DurationVar(&f.idle, "idle", 0, "unmount once nothing was asked for `DURATION` (30s, 10m, …) and nobody uses the mount")
	flags.DurationVar(&f.keyTTL, "key-ttl", defaultKeyTTL, "keep no key in memory for longer than `DURATION` without asking the KMS again (0: no limit)")
	flags.StringArrayVarP(&options, "options", "o", nil, "mount `OPTIONS`, separated by commas")
	flags.StringVar(&f.fsName, "fsname", "", "`NAME` that mount(8) and df(1) show as the source (default BACKING)")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing but errors and warnings")
	flags.BoolVarP(&f.debug, "debug", "d", false, "log more")
	flags.BoolVar(&daemon, "daemon", false, "serve the mount that the parent asks for")
	_ = flags.MarkHidden("daemon")
	return c
}

// mount mounts, in the foreground or not.
func (a *app) mount(ctx context.Context, backing, mountpoint string, f mountFlags, o mountOptions) error {
	if o.remount {
		return a.remount(backing, mountpoint, f, o)
	}
	if err := harden(); err != nil {
		return err
	}
	r, err := a.request(backing, mountpoint, f, o)
	if err != nil {
		return err
	}
	passphrase, err := a.passphraseFor(r.Keystore)
	if err != nil {
		return err
	}
	switch {
	case f.fake:
		_, err := volume.ReadInfo(r.Backing)
		return err
	case f.foreground:
		log, _ := newLog(a.stderr, r.LogLevel)
		return serve(ctx, r, passphrase, log, func() error { return nil }, true)
	}
	return a.background(ctx, r, passphrase)
}
