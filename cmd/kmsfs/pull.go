package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/snapshot"
	"kmsfs/volume"
)

// pullFlags are the flags of pull.
type pullFlags struct {
	copyFlags
	state         uint64
	allowRollback bool
	discard       bool
	full          bool
	fingerprint   string
	trustNew      bool
}

func (a *app) pullCommand() *cobra.Command {
	var f pullFlags
	c := &cobra.Command{
		Use:   "pull [flags] s3://BUCKET/PREFIX BACKING [PATH]",
		Short: "Restore a volume, or a part of one, from its copy in a bucket",
		Long: `Pull makes BACKING what the newest state of a copy says, or the one of --state: all
files, directories and links, with modes, owners (as root), times and extended
attributes. What is there already is not fetched again. What the state does not
have is removed; if that were files that no state has which this host knows, or
newer ones, nothing is done unless --discard says so. With PATH, a path in the
volume as a mount shows it, only what is at and below that is restored.

BACKING is a volume that is not mounted, or an empty directory, or is made. Each
object is verified against the manifest before anything appears under its name. It
can be stopped at any moment and called again.

A copy that is older than one that this host has seen is refused, and
--allow-rollback accepts it.

Exit codes: 25 if objects are missing or changed (the first is named), 24 if the
copy was rolled back, 6 if there is none.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 3 {
				return positional("s3://BUCKET/PREFIX", "BACKING", "PATH")(cmd, args)
			}
			return positional("s3://BUCKET/PREFIX", "BACKING")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path := ""
			if len(args) == 3 {
				path = args[2]
			}
			return a.pull(cmd.Context(), args[0], args[1], path, f)
		},
	}
	flags := c.Flags()
	flags.Uint64Var(&f.state, "state", 0, "restore state `N` (default the newest)")
	flags.BoolVar(&f.allowRollback, "allow-rollback", false, "accept a copy, or keys, older than this host has seen")
	flags.BoolVar(&f.discard, "discard", false, "give up files in BACKING that are newer than in the copy, or not in it")
	flags.BoolVar(&f.full, "full", false, "compare all of each file in BACKING before it is kept, and not its record alone")
	flags.StringVar(&f.fingerprint, "fingerprint", "", "refuse the volume unless its fingerprint is `F`")
	flags.BoolVar(&f.trustNew, "trust-new", false, "accept a volume other than the one that this host knows in BACKING")
	f.register(flags)
	return c
}

func (a *app) pull(ctx context.Context, url, backing, path string, f pullFlags) (err error) {
	if err := harden(); err != nil {
		return err
	}
	b, place, err := f.open(ctx, url, "")
	if err != nil {
		return err
	}
	p := a.newProgress("pull", byteSize)
	defer p.end()
	config, err := snapshot.ReadConfig(ctx, b)
	if err != nil {
		return err
	}
	keys, err := volume.ConfigKeys(config)
	if err != nil {
		return err
	}
	_, registry, state, err := a.openKeysOf(ctx, backing, volume.Info{Keys: keys})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	log, _ := newLog(p, slog.LevelWarn)
	report, err := snapshot.Pull(ctx, b, backing, snapshot.PullOptions{
		Place: place, State: f.state, Path: path, AllowRollback: f.allowRollback, Discard: f.discard, Full: f.full, Jobs: f.jobs,
		Volume: volume.Options{
			Providers: registry, StateDir: state, KMSDeadline: a.keys.deadline, Log: log, Fingerprint: f.fingerprint, TrustNew: f.trustNew,
		},
		Log: log, Progress: p.update,
	})
	p.end()
	switch {
	case f.json:
		err = errors.Join(err, printJSON(a.stdout, report))
	case err == nil:
		err = writePull(a.stdout, report)
	}
	return err
}

func writePull(w io.Writer, r snapshot.PullReport) error {
	var b strings.Builder
	fmt.Fprintf(&b, "state %d of %s is restored: %s files, %s directories and %s others\n",
		r.Generation, r.Created.Format(time.RFC3339), count(int64(r.Files)), count(int64(r.Dirs)), count(int64(r.Others)))
	if r.Newest != r.Generation {
		fmt.Fprintf(&b, "newest   %d\n", r.Newest)
	}
	fmt.Fprintf(&b, "fetched  %s objects, %s in %.1f s\n", count(r.Got), byteSize(r.GotBytes), r.Seconds)
	fmt.Fprintf(&b, "entries  %s made or replaced, %s files kept, %s removed\n", count(r.Placed), count(r.Kept), count(r.Removed))
	_, err := io.WriteString(w, b.String())
	return err
}
