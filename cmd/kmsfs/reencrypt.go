package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/volume"
)

func (a *app) reencryptCommand() *cobra.Command {
	var restart, asJSON bool
	c := &cobra.Command{
		Use:   "reencrypt [flags] BACKING [PATH...]",
		Short: "Give files new data keys; data is rewritten",
		Long: `Reencrypt gives every file a new data key, or only those at and below the given
PATHs in the volume. Each file is written anew beside the old one, verified, and
put in its place; mode, owner, times, holes, extended attributes and ACLs are
kept, the inode number is not. The volume must not be mounted for writing.

It can be stopped at any moment; the same call goes on where it stopped. Files
with hard links are left as they are and named.

Exit codes: 1 if files were left as they are, 25 if one of them is damaged.`,
		Args: positionalThenMore("BACKING"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.reencrypt(cmd.Context(), args[0], volume.ReencryptOptions{Paths: args[1:], Restart: restart}, asJSON)
		},
	}
	c.Flags().BoolVar(&restart, "restart", false, "begin anew, also with files that an interrupted call has done")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func (a *app) reencrypt(ctx context.Context, backing string, o volume.ReencryptOptions, asJSON bool) (err error) {
	if err := harden(); err != nil {
		return err
	}
	p := a.newProgress("reencrypt", nil)
	defer p.end()
	o.Progress = p.update
	dir, registry, state, err := a.openKeys(ctx, backing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	log, _ := newLog(p, slog.LevelWarn)
	v, err := volume.Open(ctx, dir, volume.Options{Providers: registry, StateDir: state, KMSDeadline: a.keys.deadline, Log: log})
	if err != nil {
		return err
	}
	report, err := v.Reencrypt(ctx, o)
	// What was done is made durable in any case.
	err = errors.Join(err, v.Close())
	p.end()
	if perr := a.printReencrypt(report, asJSON); perr != nil {
		err = errors.Join(err, perr)
	}
	if err != nil && !errors.Is(err, volume.ErrIncomplete) && report.Files+report.Already > 0 && hintOf(err) == "" {
		return withHint(err, "nothing is lost; the same call goes on where this one stopped")
	}
	return err
}

// printReencrypt prints what was done, and names what was not.
func (a *app) printReencrypt(r volume.ReencryptReport, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, r)
	}
	for _, path := range r.Linked {
		say(a.stderr, "left as it is, for it has hard links: %q", path)
	}
	for _, f := range r.Failed {
		say(a.stderr, "left as it is: %q: %s", f.Path, f.Error)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s files with %s were given new data keys in %.1f s\n", count(int64(r.Files)), byteSize(r.Bytes), r.Seconds)
	if r.Resumed != nil {
		fmt.Fprintf(&b, "%s files had them already, from the run that began at %s\n", count(int64(r.Already)), r.Resumed.Format(time.RFC3339))
	}
	if r.Temporaries > 0 {
		fmt.Fprintf(&b, "%d temporaries of an interrupted run were removed\n", r.Temporaries)
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}
