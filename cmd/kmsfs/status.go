package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// mountStatus is how a mount is, and what it has done since it began.
type mountStatus struct {
	Mountpoint string    `json:"mountpoint"`
	Backing    string    `json:"backing"`
	VolumeID   string    `json:"volume_id"`
	Device     string    `json:"device"` // major:minor
	PID        int       `json:"pid"`
	UID        int       `json:"uid"`
	ReadOnly   bool      `json:"read_only"`
	State      string    `json:"state"`            // unlocked, locked, revoked or unreachable
	Reason     string    `json:"reason,omitempty"` // of the last two
	Since      time.Time `json:"since"`
	Generation uint64    `json:"generation"` // of volume.json

	// After a power cut, until a check has settled everything.
	Unsettled bool           `json:"unsettled"` // mismatches are accepted
	Check     *checkProgress `json:"check"`     // null if none is under way

	KeyTTLSeconds float64 `json:"key_ttl_seconds"` // 0: no limit
	CachedKeys    int     `json:"cached_keys"`
	PooledKeys    int     `json:"pooled_keys"`

	Requests     map[string]uint64 `json:"requests"` // of the kernel, by kind
	BytesRead    uint64            `json:"bytes_read"`
	BytesWritten uint64            `json:"bytes_written"`

	LowLatency *kmsfs.Latency `json:"low_latency"` // null without -o latency=low, or a device for it

	KMS              map[string]kmsprovider.Usage `json:"kms"` // by provider
	EstimatedCostUSD float64                      `json:"estimated_cost_usd"`
}

// checkProgress is how far the check after a power cut is.
type checkProgress struct {
	Percent  int `json:"percent"`
	Findings int `json:"findings"`
}

const (
	stateUnlocked    = "unlocked"
	stateLocked      = "locked"
	stateRevoked     = "revoked"     // the KMS does not give the volume key out any more
	stateUnreachable = "unreachable" // it cannot be asked
)

// stateOf names the state of a volume that is closed for a reason.
func stateOf(closed error) (state, reason string) {
	switch {
	case closed == nil:
		return stateUnlocked, ""
	case errors.Is(closed, volume.ErrLocked):
		return stateLocked, ""
	case volume.IsRefusal(closed):
		return stateRevoked, closed.Error()
	}
	return stateUnreachable, closed.Error()
}

// dollarsPerCall is what a KMS takes for a request: AWS's price in most regions,
// 0.03 USD for 10,000. What is not here is free.
var dollarsPerCall = map[string]float64{"aws": 0.03 / 10_000}

func estimateCost(usage map[string]kmsprovider.Usage) (dollars float64) {
	for provider, u := range usage {
		dollars += float64(u.Requests()) * dollarsPerCall[provider]
	}
	return dollars
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	var wish profileWish
	c := &cobra.Command{
		Use:   "status [--json | --profile KIND] [MOUNTPOINT]",
		Short: "Show what mounts are doing",
		Long: `Status shows, for the mount at MOUNTPOINT or for all mounts of the user (root's
are those of all users), what the kernel and the KMS have been asked since it was
mounted, which keys it holds, and what the KMS's calls cost by AWS's list price.
With --json it prints an object, or without MOUNTPOINT a list of them.

With --profile it writes a profile of the process that serves the mount, for go
tool pprof: cpu (where its time goes in the next seconds), heap and allocs
(memory in use, and all that was ever allocated), goroutine (what each is doing),
mutex and block (who waits for whom: what is counted is added up over all such
profiles of a mount). No profile holds keys or contents, only names of functions
and numbers.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := profileFlags(cmd, &wish); err != nil {
				return err
			}
			if len(args) == 0 && wish.kind == "" {
				return a.statusOfAll(cmd.Context(), asJSON)
			}
			if err := positional("MOUNTPOINT")(cmd, args); err != nil {
				return err
			}
			if wish.kind != "" {
				return a.profileOf(cmd.Context(), args[0], wish)
			}
			return a.statusOf(cmd.Context(), args[0], asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addProfileFlags(c, &wish)
	return c
}

// statusOf shows the status of one mount.
func (a *app) statusOf(ctx context.Context, path string, asJSON bool) error {
	_, s, err := a.findControl(ctx, path)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(a.stdout, s)
	}
	return printStatus(a.stdout, s)
}

// statusOfAll shows the status of all mounts that answer.
func (a *app) statusOfAll(ctx context.Context, asJSON bool) error {
	entries, err := listMounts("self")
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(m mountEntry) bool {
		return m.fsType != fsType || a.euid != 0 && m.uid != a.euid
	})
	all := slices.Collect(maps.Values(a.statuses(ctx, entries)))
	slices.SortFunc(all, func(x, y *mountStatus) int { return cmp.Compare(x.Mountpoint, y.Mountpoint) })
	for _, m := range entries {
		if !slices.ContainsFunc(all, func(s *mountStatus) bool { return s.Device == m.device }) {
			say(a.stderr, "%s does not answer", m.mountpoint)
		}
	}
	if asJSON {
		if all == nil {
			all = []*mountStatus{}
		}
		return printJSON(a.stdout, all)
	}
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(a.stdout)
		}
		if err := printStatus(a.stdout, s); err != nil {
			return err
		}
	}
	return nil
}

func printStatus(w io.Writer, s *mountStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("mount point", "%s", s.Mountpoint)
	row("backing directory", "%s", s.Backing)
	row("volume", "%s (generation %d)", s.VolumeID, s.Generation)
	if s.State != stateUnlocked {
		row("state", "%s", strings.TrimSuffix(s.State+": "+s.Reason, ": "))
	}
	switch {
	case s.Check != nil:
		row("after a power cut", "mismatches are accepted while everything is checked: %d %%, %d findings", s.Check.Percent, s.Check.Findings)
	case s.Unsettled:
		row("after a power cut", "mismatches are accepted, for not everything could be checked; see the log, and kmsfs fsck --repair")
	}
	row("process", "%d of user %d, since %s", s.PID, s.UID, s.Since.Format(time.RFC3339))
	row("keys in memory", "%d of files, %d ready for new ones, %s", s.CachedKeys, s.PooledKeys, s.lifetime())
	row("bytes", "%d read, %d written", s.BytesRead, s.BytesWritten)
	row("requests", "%s", counts(s.Requests))
	if l := s.LowLatency; l != nil {
		now := "not"
		if l.Held {
			now = "now"
		}
		row("low latency", "%s asked for; %d times so far", now, l.Holds)
	}
	for _, provider := range slices.Sorted(maps.Keys(s.KMS)) {
		u := s.KMS[provider]
		row("calls of "+provider, "%s", counts(u.Calls))
		if len(u.Failures) > 0 {
			row("failures of "+provider, "%s", counts(u.Failures))
		}
	}
	row("estimated cost", "%.6f USD", s.EstimatedCostUSD)
	return t.Flush()
}

func (s *mountStatus) lifetime() string {
	if s.KeyTTLSeconds == 0 {
		return "for as long as they are used"
	}
	return "each for at most " + time.Duration(s.KeyTTLSeconds*float64(time.Second)).String()
}

// counts shows how often each thing was, the most frequent first.
func counts(m map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	if len(names) == 0 {
		return "none"
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, m[name])
	}
	return strings.Join(names, ", ")
}
