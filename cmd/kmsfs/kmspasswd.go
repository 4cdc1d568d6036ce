package main

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
)

func (a *app) passwdCommand() *cobra.Command {
	var file, command string
	c := &cobra.Command{
		Use:   "passwd [flags]",
		Short: "Change the keystore's passphrase",
		Long: `Passwd seals the keystore's key under a new passphrase. The current one is asked
for as always; the new one twice, unless a flag says where it is from. Volumes and
mounts do not notice. A copy of the old file still opens with the old passphrase.`,
		Args: positional(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" && command != "" {
				return usagef("--new-passphrase-file and --new-passphrase-command exclude each other")
			}
			keystore, err := a.keystorePath()
			if err != nil {
				return err
			}
			current, err := a.passphraseFor(keystore)
			if err != nil {
				return err
			}
			next := passphraseSource(func(ctx context.Context, _ askFor) ([]byte, error) { return askTerminal(ctx, keystore, askNew) })
			switch {
			case file != "":
				next = fromFile(file)
			case command != "":
				next = a.fromCommand(command)
			}
			return a.changePassphrase(cmd.Context(), keystore, current, next)
		},
	}
	c.Flags().StringVar(&file, "new-passphrase-file", "", "`FILE` that holds the new passphrase")
	c.Flags().StringVar(&command, "new-passphrase-command", "", "shell `COMMAND` that prints the new passphrase")
	return c
}

// changePassphrase asks for the current passphrase once, and keeps it until it
// has opened the keystore's key again.
func (a *app) changePassphrase(ctx context.Context, keystore string, current, next passphraseSource) error {
	if err := harden(); err != nil {
		return err
	}
	var passphrase []byte
	defer func() { clear(passphrase) }()
	k, err := local.Open(ctx, local.Options{Path: keystore, Passphrase: func() (b []byte, err error) {
		passphrase, err = current(ctx, askExisting)
		return bytes.Clone(passphrase), err
	}})
	if err != nil {
		return err
	}
	defer k.Close()
	again := func() ([]byte, error) { return bytes.Clone(passphrase), nil }
	if err := k.ChangePassphrase(ctx, again, func() ([]byte, error) { return next(ctx, askNew) }, nil); err != nil {
		return err
	}
	say(a.stderr, "changed the passphrase of keystore %s", keystore)
	return nil
}
