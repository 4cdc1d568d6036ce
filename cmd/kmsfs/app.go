package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/volume"
)

// app is one call of the command.
type app struct {
	name           string   // argv[0]
	args           []string // what follows it
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	euid           int

	silent bool // the error was told to somebody else
	keys   keyFlags
}

// run calls the subcommand, or plays mount(8)'s helper.
func (a *app) run(ctx context.Context) error {
	root := a.rootCommand()
	if a.isHelper(root) {
		return a.runHelper(ctx)
	}
	root.SetArgs(officialArguments(root, a.args))
	return root.ExecuteContext(ctx)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kmsfs",
		Short: "an encrypting file system with keys in a KMS",
		Long: "kmsfs encrypts a directory with keys of a KMS and mounts it in plaintext.\n\n" +
			"As mount.kmsfs, or where the first argument is a path, it takes BACKING MOUNTPOINT [-o OPTIONS] as mount(8) gives them.",
		Args:          cobra.ArbitraryArgs, // so that an unknown verb gets here
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          requireVerb,
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(usagef("%s: %w", verbOf(cmd), err), "see %s --help", cmd.CommandPath())
	})
	a.keys.register(root.PersistentFlags())
	root.AddCommand(
		a.initCommand(), a.mountCommand(), a.unmountCommand(), a.infoCommand(), a.statusCommand(), a.lockCommand(), a.unlockCommand(),
		a.rewrapCommand(), a.reencryptCommand(), a.fsckCommand(), a.pushCommand(), a.pullCommand(), a.verifyCommand(), a.encryptCommand(), a.decryptCommand(), a.kmsCommand(), a.versionCommand(),
	)
	return root
}

// requireVerb is what a command does that has only subcommands.
func requireVerb(cmd *cobra.Command, args []string) error {
	see := "see " + cmd.CommandPath() + " --help"
	if len(args) == 0 {
		return withHint(usagef("no command given"), "%s", see)
	}
	cmd.SuggestionsMinimumDistance = 2 // edits
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		see = "did you mean " + strings.Join(s, " or ") + "?"
	}
	return withHint(usagef("unknown command %q", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], "kmsfs ")), "%s", see)
}

// verbOf is a command as it stands in messages.
func verbOf(cmd *cobra.Command) string {
	if !cmd.HasParent() {
		return "command line"
	}
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// positional demands exactly the arguments of these names.
func positional(names ...string) cobra.PositionalArgs { return arguments(names, false) }

// positionalThenMore demands the arguments of these names, and lets any follow.
func positionalThenMore(names ...string) cobra.PositionalArgs { return arguments(names, true) }

func arguments(names []string, more bool) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		see := "usage: " + cmd.UseLine()
		switch {
		case len(args) < len(names):
			return withHint(usagef("%s: %s is missing", verbOf(cmd), names[len(args)]), "%s", see)
		case len(args) > len(names) && !more:
			return withHint(usagef("%s: one argument too many: %q", verbOf(cmd), args[len(names)]), "%s", see)
		}
		for i, s := range args {
			if s == "" {
				return withHint(usagef("%s: %s is empty", verbOf(cmd), append(names, "an argument")[min(i, len(names))]), "%s", see)
			}
		}
		return nil
	}
}

// stateDir is where this host remembers volumes.
func (a *app) stateDir() (string, error) {
	dir := volume.DefaultStateDir(a.getenv, a.euid, a.home())
	if !filepath.IsAbs(dir) {
		return "", withHint(errors.New("no directory to remember volumes in: no home directory is known"), "set HOME or XDG_STATE_HOME")
	}
	return dir, nil
}
