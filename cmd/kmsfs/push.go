package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/snapshot"
	"kmsfs/volume"
)

// pushFlags are the flags of push.
type pushFlags struct {
	copyFlags
	keep          int
	sseKey        string
	allowRollback bool
}

func (a *app) pushCommand() *cobra.Command {
	var f pushFlags
	c := &cobra.Command{
		Use:   "push [flags] BACKING s3://BUCKET/PREFIX",
		Short: "Copy a volume into a bucket",
		Long: `Push brings the copy of a volume in a bucket to what is in BACKING. It sends what
has changed since the last push, and at last a manifest, encrypted: whoever reads
the copy sees the state before or the new one, never a mixture. Contents are
copied as they are stored, and nothing of them is decrypted.

The volume may be mounted, also while it is written to: each file is copied as it
was at some moment during the push, and all that was written before is in it. It
can be stopped at any moment and called again; what was sent is not sent again.

Without --keep all earlier states stay. Each volume has a prefix of its own.
Credentials and endpoint are found as by the AWS CLI.

Exit codes: 25 if something in the volume is damaged (it is named, and there is no
new state), 24 if the copy is older than it was.`,
		Args: positional("BACKING", "s3://BUCKET/PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.push(cmd.Context(), args[0], args[1], f) },
	}
	flags := c.Flags()
	flags.IntVar(&f.keep, "keep", 0, "keep the newest `N` states, and remove the others (default all)")
	flags.StringVar(&f.sseKey, "sse-kms-key", "", "have the store encrypt under this `KEY` of its KMS, too")
	flags.BoolVar(&f.allowRollback, "allow-rollback", false, "go on from a copy that is older than this host has seen it")
	f.register(flags)
	return c
}

func (a *app) push(ctx context.Context, backing, url string, f pushFlags) (err error) {
	if f.keep < 0 {
		return usagef("--keep %d: want a number of states", f.keep)
	}
	if err := harden(); err != nil {
		return err
	}
	b, place, err := f.open(ctx, url, f.sseKey)
	if err != nil {
		return err
	}
	p := a.newProgress("push", byteSize)
	defer p.end()
	dir, registry, state, err := a.openKeys(ctx, backing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	log, _ := newLog(p, slog.LevelWarn)
	access, live, end, err := a.openForCopy(ctx, dir,
		volume.Options{Providers: registry, StateDir: state, KMSDeadline: a.keys.deadline, Log: log}, max(f.jobs, 16))
	if err != nil {
		return err
	}
	o := snapshot.PushOptions{
		Place: place, Keep: f.keep, AllowRollback: f.allowRollback, Jobs: f.jobs, Log: log,
		Progress: func(done int64) { p.update(done, 0) },
	}
	if live != nil {
		o.Live = live
	}
	report, err := snapshot.Push(ctx, dir, access, b, o)
	err = errors.Join(err, end())
	p.end()
	return errors.Join(err, a.printPush(report, f.json, err == nil))
}

// printPush prints what was done.
func (a *app) printPush(r snapshot.PushReport, asJSON, done bool) error {
	if asJSON {
		return printJSON(a.stdout, r)
	}
	for _, u := range r.Unread {
		say(a.stderr, "%s could not be copied: %s", u.Name, u.Error)
	}
	if !done {
		return nil
	}
	return writePush(a.stdout, r)
}

func writePush(w io.Writer, r snapshot.PushReport) error {
	var b strings.Builder
	what := "is the newest state, and nothing has changed since"
	if r.Changed {
		what = "is the new state"
	}
	fmt.Fprintf(&b, "state %d %s: %s files, %s directories and %s others\n", r.Generation, what, count(int64(r.Files)), count(int64(r.Dirs)), count(int64(r.Others)))
	fmt.Fprintf(&b, "sent     %s objects, %s in %.1f s\n", count(r.Sent), byteSize(r.SentBytes), r.Seconds)
	if r.FoundAgain > 0 {
		fmt.Fprintf(&b, "found    %s objects that an interrupted push had sent\n", count(r.FoundAgain))
	}
	if r.Removed > 0 || len(r.StatesRemoved) > 0 {
		fmt.Fprintf(&b, "removed  %d states, %s objects\n", len(r.StatesRemoved), count(r.Removed))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
