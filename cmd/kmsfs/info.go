package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/volume"
)

func (a *app) infoCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info [--json] BACKING",
		Short: "Show what can be known of a volume without its key",
		Args:  positional("BACKING"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := findBacking(args[0])
			if err != nil {
				return err
			}
			info, err := volume.ReadInfo(dir)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.stdout, info)
			}
			return printInfo(a.stdout, info)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printInfo(w io.Writer, info volume.Info) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("backing directory", "%s", info.Path)
	row("volume", "%s", info.ID)
	row("format", "%d", info.FormatVersion)
	row("created", "%s", info.Created.Format(time.RFC3339))
	row("generation", "%d", info.Generation)
	row("key mode", "%s", info.KeyMode)
	if len(info.Features) > 0 {
		row("features", "%s", strings.Join(info.Features, ", "))
	}
	for _, k := range info.Keys {
		row("key", "%s %s (%s)", k.Provider, k.KeyID, k.State)
	}
	for _, m := range info.Sessions {
		row("mounted", "%s (process %d on %s, since %s)", m.Mountpoint, m.PID, m.Host, m.Since.Format(time.RFC3339))
	}
	return t.Flush()
}
