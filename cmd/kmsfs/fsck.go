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

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// fsckFlags are the flags of fsck.
type fsckFlags struct {
	repair   bool
	trustNew bool
	jobs     int
	json     bool
	grace    time.Duration
}

func (a *app) fsckCommand() *cobra.Command {
	var f fsckFlags
	c := &cobra.Command{
		Use:   "fsck [flags] BACKING [PATH...]",
		Short: "Check a volume, and repair it",
		Long: `Fsck checks everything in a volume: its configuration, directories and names,
symbolic links, files with each of their blocks and their keys, and what is left
over in .kmsfs. With PATHs in the volume, as a mount shows them, it checks only
what is at and below them. The volume must not be mounted for writing.

With --repair it mends what can be mended, and takes away nothing that can be
read: what nobody can read is set aside in BACKING/.kmsfs/lost+found, and a block
that is damaged stays where it is. Keys that no file has are removed once they have
been in BACKING for a day (--grace): in a copy that is being made, their files may
still be on their way. Do not repair a copy that is not complete. It can be stopped
at any moment and called again.

Exit codes: 0 if there are no errors, 26 if there are any after it, 27 if all
were repaired. What is only left over is no error.`,
		Args: positionalThenMore("BACKING"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.fsck(cmd.Context(), args[0], args[1:], f) },
	}
	flags := c.Flags()
	flags.BoolVar(&f.repair, "repair", false, "mend what can be mended")
	flags.BoolVar(&f.trustNew, "trust-new", false, "accept a changed fingerprint or an older configuration, as mount does")
	flags.IntVar(&f.jobs, "jobs", 0, "decrypt `N` files at a time (default the number of processors)")
	flags.DurationVar(&f.grace, "grace", 24*time.Hour, "remove keys that no file has if they have been there for this long")
	flags.BoolVar(&f.json, "json", false, "print the result as one JSON document")
	return c
}

func (a *app) fsck(ctx context.Context, backing string, paths []string, f fsckFlags) (err error) {
	if f.jobs < 0 {
		return usagef("--jobs %d: want a number of files", f.jobs)
	}
	if f.grace < 0 {
		return usagef("--grace %v: want a time that is not negative", f.grace)
	}
	if err := harden(); err != nil {
		return err
	}
	p := a.newProgress("fsck", nil)
	defer p.end()
	dir, registry, state, err := a.openKeysForFsck(ctx, backing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Close()) }()
	log, _ := newLog(p, slog.LevelWarn)
	report, err := volume.Fsck(ctx, dir,
		volume.Options{Providers: registry, StateDir: state, KMSDeadline: a.keys.deadline, TrustNew: f.trustNew, Log: log},
		volume.FsckOptions{Repair: f.repair, Paths: paths, Jobs: f.jobs, Grace: f.grace, Progress: p.update})
	p.end()
	if report == nil {
		return err
	}
	if perr := a.printFsck(report, f.json); perr != nil {
		err = errors.Join(err, perr)
	}
	switch {
	case err != nil:
		return err
	case report.Remaining > 0 && !f.repair:
		return withHint(&causeError{fmt.Errorf("%s found", countErrors(report.Remaining)), errErrorsLeft}, "see what can be mended: kmsfs fsck --repair")
	case report.Remaining > 0:
		return &causeError{fmt.Errorf("%s found, %s could not be repaired", countErrors(report.Errors), count(int64(report.Remaining))), errErrorsLeft}
	case report.Errors > 0:
		return &causeError{fmt.Errorf("%s found and repaired", countErrors(report.Errors)), errRepaired}
	}
	return nil
}

// openKeysForFsck is openKeys for a volume whose configuration may be damaged.
func (a *app) openKeysForFsck(ctx context.Context, backing string) (string, *kmsprovider.Registry, string, error) {
	dir, err := findBacking(backing)
	if err != nil {
		return "", nil, "", err
	}
	info, err := volume.ReadInfo(dir)
	if errors.Is(err, volume.ErrIntegrity) || errors.Is(err, volume.ErrNotVolume) {
		previous, perr := volume.ReadPreviousInfo(dir)
		if perr == nil {
			info, err = previous, nil
		}
	}
	if err != nil {
		return "", nil, "", err
	}
	return a.openKeysOf(ctx, dir, info)
}

func countErrors(n int) string {
	if n == 1 {
		return "1 error"
	}
	return count(int64(n)) + " errors"
}

// printFsck prints what was found.
func (a *app) printFsck(r *volume.FsckReport, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, r)
	}
	return writeFsck(a.stdout, r)
}

func writeFsck(w io.Writer, r *volume.FsckReport) error {
	var b strings.Builder
	for i := range r.Findings {
		f := &r.Findings[i]
		state := "error    "
		switch {
		case f.Repaired:
			state = "repaired "
		case f.Harmless:
			state = "left over"
		}
		fmt.Fprintf(&b, "%s  %s\n", state, f.String())
	}
	fmt.Fprintf(&b, "checked    %s files with %s in %s blocks, %s directories, %s symbolic links, %s others and %s sidecars in %.1f s\n",
		count(int64(r.Files)), byteSize(r.Bytes), count(r.Blocks), count(int64(r.Directories)), count(int64(r.Symlinks)),
		count(int64(r.Others)), count(int64(r.Sidecars)), r.Seconds)
	if !r.Complete {
		fmt.Fprintln(&b, "not everything could be looked at")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
