package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

func (a *app) kmsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "kms VERB",
		Short: "Manage and use the keys of the local KMS",
		Long: `Kms manages and uses the keys of the local KMS, with the verbs, flags and JSON of
aws kms. As there, a value file://PATH is the text of a file and fileb://PATH its
bytes; other values of bytes are base64.`,
		Args: cobra.ArbitraryArgs,
		RunE: requireVerb,
	}
	for _, v := range kmsVerbs() {
		c.AddCommand(a.kmsVerbCommand(v))
	}
	c.AddCommand(a.passwdCommand(), a.auditCommand(), a.serveKMSCommand())
	return c
}

// kmsVerbCommand makes the command of one verb: its operation's input becomes
// the flags, its output the JSON that is printed.
func (a *app) kmsVerbCommand(v kmsVerb) *cobra.Command {
	in, ok := local.NewInput(v.operation)
	if !ok {
		panic("kms: no operation " + v.operation)
	}
	c := &cobra.Command{Short: v.short, Long: v.long, Args: cobra.ArbitraryArgs}
	f := addKMSFlags(c.Flags(), in, v.positional)
	c.Use = f.usage(v.name())
	if v.more != nil {
		v.more(c, in)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.complete(cmd, args); err != nil {
			return err
		}
		return a.withKeystore(cmd.Context(), v.missing, func(ctx context.Context, k *local.Keystore) error {
			if v.before != nil {
				if err := v.before(cmd, k, in); err != nil {
					return err
				}
			}
			out, err := doAllPages(ctx, k, in)
			if err != nil {
				return fmt.Errorf("%s: %w", verbOf(cmd), hintKMS(err, in))
			}
			return printOutput(a.stdout, out)
		})
	}
	return c
}

// withKeystore opens the keystore, and closes it when do is done.
func (a *app) withKeystore(ctx context.Context, missing ifMissing, do func(context.Context, *local.Keystore) error) error {
	if err := harden(); err != nil {
		return err
	}
	keystore, err := a.keystorePath()
	if err != nil {
		return err
	}
	passphrase, err := a.passphraseFor(keystore)
	if err != nil {
		return err
	}
	note := func(format string, args ...any) { say(a.stderr, format, args...) }
	k, err := openKeystore(ctx, keystore, passphrase, missing, note)
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, k), k.Close())
}

// hintKMS says what to do about a refusal where that depends on what was asked.
func hintKMS(err error, in local.Input) error {
	var refused *local.Error
	switch in := in.(type) {
	case *local.EncryptInput:
		if errors.As(err, &refused) && strings.Contains(refused.Message, fmt.Sprintf("less than or equal to %d", kmsprovider.MaxPlaintext)) {
			return withHint(err, "a KMS encrypts %d bytes at most; an envelope has no such limit: kmsfs encrypt --key local:%s --input FILE --output FILE", kmsprovider.MaxPlaintext, in.KeyID)
		}
	case *local.ScheduleKeyDeletionInput:
		if errors.Is(err, kmsprovider.ErrAccessDenied) {
			return withHint(err, "make a key of your own with kmsfs kms create-key")
		}
	}
	return err
}
