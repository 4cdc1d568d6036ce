package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// isHelper tells whether the command is called as mount(8) calls its helpers:
// mount.kmsfs, or kmsfs with paths where the verb would be.
func (a *app) isHelper(root *cobra.Command) bool {
	if strings.HasPrefix(filepath.Base(a.name), "mount.") {
		return true
	}
	if len(a.args) < 2 || strings.HasPrefix(a.args[0], "-") {
		return false
	}
	first := a.args[0]
	if strings.Contains(first, "/") {
		return true
	}
	for _, c := range root.Commands() {
		if c.Name() == first || c.HasAlias(first) {
			return false
		}
	}
	switch first {
	case "help", "completion", cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		return false
	}
	st, err := os.Stat(first)
	return err == nil && st.IsDir()
}

// runHelper mounts with the flags that mount(8) gives its helpers:
//
//	mount.kmsfs BACKING MOUNTPOINT [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]
func (a *app) runHelper(ctx context.Context) error {
	const usage = "usage: kmsfs BACKING MOUNTPOINT [-sfnv] [-o OPTIONS]"
	var f mountFlags
	flags := pflag.NewFlagSet("kmsfs", pflag.ContinueOnError)
	flags.SetOutput(a.stderr)
	flags.Usage = func() { fmt.Fprintln(a.stderr, usage) }
	flags.BoolVarP(&f.fake, "fake", "f", false, "do everything but the mount")
	sloppy := flags.BoolP("sloppy", "s", false, "ignore unknown options")
	flags.BoolP("no-mtab", "n", false, "accepted: there is no mtab to write")
	flags.BoolVarP(&f.debug, "verbose", "v", false, "say more")
	namespace := flags.StringP("namespace", "N", "", "accepted if it is our own")
	flags.StringP("types", "t", "", "accepted: there is one type")
	options := flags.StringArrayP("options", "o", nil, "options, separated by commas")
	if err := flags.Parse(a.args); err != nil {
		if err == pflag.ErrHelp {
			return nil
		}
		return withHint(usagef("%w", err), usage)
	}
	if flags.NArg() != 2 {
		return withHint(usagef("want BACKING and MOUNTPOINT, got %d paths", flags.NArg()), usage)
	}
	if *namespace != "" && !ownMountNamespace(*namespace) {
		return withHint(usagef("mount namespace %s is another one", *namespace), "run the command in it, with nsenter(1)")
	}
	o, err := parseMountOptions(*options, *sloppy)
	if err != nil {
		return err
	}
	f.keyTTL = defaultKeyTTL
	if o.keyTTL != nil {
		f.keyTTL = *o.keyTTL
	}
	return a.mount(ctx, flags.Arg(0), flags.Arg(1), f, o)
}

// ownMountNamespace tells whether a namespace, named by a file or by a process
// ID, is the one that we are in.
func ownMountNamespace(name string) bool {
	if _, err := strconv.Atoi(name); err == nil {
		name = "/proc/" + name + "/ns/mnt"
	}
	own, err := os.Stat("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	st, err := os.Stat(name)
	return err == nil && os.SameFile(own, st)
}
