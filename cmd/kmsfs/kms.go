package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
)

func (a *app) kmsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "kms VERB",
		Short: "Manage the keys of the local KMS",
		Long:  "Kms manages the keys of the local KMS, with the verbs, flags and JSON of aws kms.",
		Args:  cobra.ArbitraryArgs,
		RunE:  requireVerb,
	}
	c.AddCommand(
		a.createKeyCommand(), a.listKeysCommand(), a.describeKeyCommand(), a.enableKeyCommand(), a.disableKeyCommand(),
		a.createAliasCommand(), a.listAliasesCommand(),
		a.auditCommand(), a.serveKMSCommand(),
	)
	return c
}

// verb is what a verb of kms does with the keystore. Its result is printed as
// JSON unless it is nil.
type verb func(ctx context.Context, k *local.Keystore) (any, error)

// kmsVerb makes the RunE of a verb.
func (a *app) kmsVerb(missing ifMissing, do verb) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
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
		k, err := openKeystore(cmd.Context(), keystore, passphrase, missing, note)
		if err != nil {
			return err
		}
		defer k.Close()
		result, err := do(cmd.Context(), k)
		if err != nil || result == nil {
			return err
		}
		return printJSON(a.stdout, result)
	}
}

// keyIDFlag adds a required flag that names a key.
func keyIDFlag(c *cobra.Command, p *string, name, usage string) {
	c.Flags().StringVar(p, name, "", usage)
	c.PreRunE = func(*cobra.Command, []string) error {
		if *p == "" {
			return usagef("%s: --%s is missing", verbOf(c), name)
		}
		// A key is named local:… everywhere else.
		*p = strings.TrimPrefix(*p, "local:")
		return nil
	}
}

// printJSON prints v as the AWS CLI does.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
