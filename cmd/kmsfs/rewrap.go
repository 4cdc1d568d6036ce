package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// rewrapFlags are the flags of rewrap.
type rewrapFlags struct {
	from, to string
	rate     string
	offline  bool
	json     bool
}

func (a *app) rewrapCommand() *cobra.Command {
	var f rewrapFlags
	c := &cobra.Command{
		Use:   "rewrap [flags] BACKING",
		Short: "Change the keys that wrap the volume's keys; data is not touched",
		Long: `Rewrap replaces a key that wraps the volume's keys by another one: with --from
and --to. With --to alone it adds a key, with --from alone it removes one, but
never the last. Only .kmsfs is rewritten, and the volume may be mounted meanwhile.

At the end it proves that every file's key names the keys that are left and was
opened with them. Without --from and --to it only proves that, and finishes
what was interrupted. It can be stopped at any moment and called again.

The keys of volume and files stay what they are: who has had them unwrapped can
still use them. For new ones see kmsfs reencrypt.

Exit code 25: sidecars are damaged. They are named, and no key is given up.`,
		Args: positional("BACKING"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.rewrap(cmd.Context(), args[0], f) },
	}
	flags := c.Flags()
	flags.StringVar(&f.from, "from", "", "`KEY` to give up")
	flags.StringVar(&f.to, "to", "", "`KEY` to take")
	flags.StringVar(&f.rate, "rate", "", "make at most `N` calls to the KMS in a second (N or N/s; default no limit)")
	flags.BoolVar(&f.offline, "offline", false, "take a key that cannot be opened here, such as a recovery key kept elsewhere; what it wraps is not proven")
	flags.BoolVar(&f.json, "json", false, "print the result as JSON")
	return c
}

func (a *app) rewrap(ctx context.Context, backing string, f rewrapFlags) error {
	if err := harden(); err != nil {
		return err
	}
	o := volume.RewrapOptions{Offline: f.offline}
	var err error
	if o.From, err = keyFlag("--from", f.from); err != nil {
		return err
	}
	if o.To, err = keyFlag("--to", f.to); err != nil {
		return err
	}
	if o.Rate, err = parseRate(f.rate); err != nil {
		return err
	}
	if o.Offline && f.to == "" {
		return usagef("--offline is about the key of --to, and there is none")
	}
	p := a.newProgress("rewrap", count)
	defer p.end()
	o.Progress = func(done, total int) { p.update(int64(done), int64(total)) }
	o.Log, _ = newLog(p, slog.LevelWarn)
	o.KMSDeadline = a.keys.deadline
	dir, registry, state, err := a.openKeys(ctx, backing)
	if err != nil {
		return err
	}
	defer registry.Close()
	o.Providers, o.StateDir = registry, state
	report, err := volume.Rewrap(ctx, dir, o)
	p.end()
	if err := errors.Join(err, a.printRewrap(report, f.json)); err != nil {
		return rewrapHint(err, report)
	}
	return nil
}

// keyFlag reads a flag that names a key; "" is none.
func keyFlag(flag, value string) (kmsprovider.KeyURI, error) {
	if value == "" {
		return kmsprovider.KeyURI{}, nil
	}
	uri, err := kmsprovider.ParseKeyURI(value)
	if err != nil {
		return uri, usagef("%s: %w", flag, err)
	}
	return uri, nil
}

func parseRate(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	rate, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || !(rate > 0 && rate < 1e9) {
		return 0, usagef("--rate %q: want a number of calls in a second, such as 100/s", s)
	}
	return rate, nil
}

// openKeys prepares what works on a volume that it does not mount: the real path
// of its backing directory, its key providers, of which the first is opened so
// that a passphrase is asked for now, and where this host remembers volumes. The
// caller closes the registry.
func (a *app) openKeys(ctx context.Context, backing string) (dir string, registry *kmsprovider.Registry, state string, err error) {
	if dir, err = findBacking(backing); err != nil {
		return "", nil, "", err
	}
	info, err := volume.ReadInfo(dir)
	if err != nil {
		return "", nil, "", err
	}
	return a.openKeysOf(ctx, dir, info)
}

// openKeysOf is openKeys for a volume that was looked at.
func (a *app) openKeysOf(ctx context.Context, dir string, info volume.Info) (_ string, registry *kmsprovider.Registry, state string, err error) {
	sources, err := a.keySources()
	if err != nil {
		return "", nil, "", err
	}
	if state, err = a.stateDir(); err != nil {
		return "", nil, "", err
	}
	passphrase, err := a.passphraseFor(sources.Keystore)
	if err != nil {
		return "", nil, "", err
	}
	registry = sources.registry(passphrase, keystoreRequired, func(string, ...any) {})
	if err := openFirst(ctx, info.Keys, registry); err != nil {
		return "", nil, "", errors.Join(err, registry.Close())
	}
	return dir, registry, state, nil
}

// rewrapHint says how to go on after an error.
func rewrapHint(err error, r volume.RewrapReport) error {
	var h *hintError
	switch {
	case errors.As(err, &h) || hintOf(err) != "":
		return err
	case errors.Is(err, volume.ErrMountBehind):
		return withHint(err, "unlock or unmount it, or wait until it answers again, and call kmsfs rewrap once more")
	case len(r.Damaged) > 0:
		return withHint(err, "put the named sidecars back from a backup, or remove their files, and call kmsfs rewrap once more")
	case r.Generation > 0 && !r.Complete && !errors.Is(err, volume.ErrKeyChange):
		return withHint(err, "nothing is lost; the same call goes on where this one stopped")
	}
	return err
}

// printRewrap prints what was done and proven.
func (a *app) printRewrap(r volume.RewrapReport, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, r)
	}
	for _, d := range r.Damaged {
		say(a.stderr, "sidecar %s is damaged: %s", d.Name, d.Error)
	}
	if !r.Complete {
		return nil
	}
	return writeRewrap(a.stdout, r)
}

func writeRewrap(w io.Writer, r volume.RewrapReport) error {
	var b strings.Builder
	for _, k := range r.Added {
		fmt.Fprintf(&b, "added    %s\n", k)
	}
	for _, k := range r.Removed {
		fmt.Fprintf(&b, "removed  %s\n", k)
	}
	for _, k := range r.Keys {
		fmt.Fprintf(&b, "key      %s (%s)\n", k.KeyID, k.State)
	}
	opened := strings.Join(r.Opened, " and with ")
	if r.KeyMode == volume.ModeVolume {
		fmt.Fprintf(&b, "proof    the volume key was opened with %s; %s sidecars hold keys that the volume key wraps, and need nothing\n",
			opened, count(int64(r.Sidecars)))
	} else {
		fmt.Fprintf(&b, "proof    %s of %s sidecars name exactly these keys, were opened with %s, and fit their commitments; so was the volume key\n",
			count(int64(r.Proven)), count(int64(r.Sidecars)), opened)
	}
	for _, k := range r.Unopened {
		fmt.Fprintf(&b, "unproven what %s wraps: it cannot be used here\n", k)
	}
	fmt.Fprintf(&b, "done     %s sidecars rewritten in %.1f s; calls to the KMS:", count(int64(r.Rewritten)), r.Seconds)
	for _, op := range slices.Sorted(maps.Keys(r.KMSCalls)) {
		fmt.Fprintf(&b, " %s %s", count(r.KMSCalls[op]), op)
	}
	_, err := fmt.Fprintln(w, b.String())
	return err
}
