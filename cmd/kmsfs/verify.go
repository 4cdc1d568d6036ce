package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/snapshot"
	"kmsfs/volume"
)

// verifyFlags are the flags of verify.
type verifyFlags struct {
	copyFlags
	state uint64
	full  bool
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify [flags] BACKING s3://BUCKET/PREFIX",
		Short: "Compare a volume and its copy in a bucket with a manifest",
		Long: `Verify looks whether the copy of a volume in a bucket is whole: the manifest of the
newest state, or of that of --state, and each object that it names, by its length
and by the SHA-256 that the store vouches for. With --full it reads all objects.

It also compares the volume in BACKING, which may be mounted, with that state: by
the records of files, or with --full by all of their bytes. What was changed since
is told; a file that is older than it was pushed is an error, since somebody put it
back.

Exit code 25: something is missing, cut, swapped, changed or rolled back. It is
named.`,
		Args: positional("BACKING", "s3://BUCKET/PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.verify(cmd.Context(), args[0], args[1], f) },
	}
	flags := c.Flags()
	flags.Uint64Var(&f.state, "state", 0, "compare with state `N` (default the newest)")
	flags.BoolVar(&f.full, "full", false, "read all objects, and all files")
	f.register(flags)
	return c
}

func (a *app) verify(ctx context.Context, backing, url string, f verifyFlags) (err error) {
	if err := harden(); err != nil {
		return err
	}
	b, place, err := f.open(ctx, url, "")
	if err != nil {
		return err
	}
	p := a.newProgress("verify", count)
	defer p.end()
	dir, registry, state, err := a.openKeys(ctx, backing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	log, _ := newLog(p, slog.LevelWarn)
	access, err := volume.OpenAccess(ctx, dir,
		volume.Options{Providers: registry, StateDir: state, KMSDeadline: a.keys.deadline, Log: log, ReadOnly: true})
	if err != nil {
		return err
	}
	defer access.Close()
	report, err := snapshot.Verify(ctx, dir, access, b, snapshot.VerifyOptions{
		Place: place, State: f.state, Full: f.full, Jobs: f.jobs, Log: log, Progress: p.update,
	})
	p.end()
	if f.json {
		return errors.Join(err, printJSON(a.stdout, report))
	}
	if err != nil && !errors.Is(err, snapshot.ErrDamaged) {
		return err
	}
	return errors.Join(err, writeVerify(a.stdout, report))
}

func writeVerify(w io.Writer, r snapshot.VerifyReport) error {
	var b strings.Builder
	for _, p := range r.Problems {
		where := p.Key
		if where == "" {
			where = p.Name
		}
		fmt.Fprintf(&b, "%-11s %s", p.Kind, where)
		if len(p.Paths) > 0 {
			fmt.Fprintf(&b, " (%s)", strings.Join(p.Paths, ", "))
		}
		fmt.Fprintf(&b, ": %s\n", p.Detail)
	}
	for _, d := range r.Differences {
		fmt.Fprintf(&b, "%-11s %q\n", d.Kind, d.Path)
	}
	if r.Generation != 0 {
		fmt.Fprintf(&b, "state %d of %s: looked at %s objects and %s files in %.1f s\n",
			r.Generation, r.Created.Format(time.RFC3339), count(r.Objects), count(r.Files), r.Seconds)
	}
	if r.Unproven > 0 {
		fmt.Fprintf(&b, "the store vouches for the length of %s of them, and not for what is in them; --full reads them\n", count(r.Unproven))
	}
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(r.Counts)) {
		total += r.Counts[kind]
	}
	if total > len(r.Differences) {
		fmt.Fprintf(&b, "and %s more differences\n", count(int64(total-len(r.Differences))))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
