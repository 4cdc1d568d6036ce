package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
)

func (a *app) createAliasCommand() *cobra.Command {
	var alias, keyID string
	c := &cobra.Command{
		Use:   "create-alias --alias-name alias/NAME --target-key-id KEY",
		Short: "Give a key a name",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return nil, k.CreateAlias(ctx, alias, keyID)
		}),
	}
	keyIDFlag(c, &keyID, "target-key-id", "`KEY`: its ID or ARN")
	c.Flags().StringVar(&alias, "alias-name", "", "its `NAME`, alias/ included")
	checkKey := c.PreRunE
	c.PreRunE = func(cmd *cobra.Command, args []string) error {
		if alias == "" {
			return usagef("%s: --alias-name is missing", verbOf(cmd))
		}
		return checkKey(cmd, args)
	}
	return c
}

func (a *app) listAliasesCommand() *cobra.Command {
	var keyID string
	c := &cobra.Command{
		Use:   "list-aliases [--key-id KEY]",
		Short: "List all aliases, or those of one key",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return k.Do(ctx, k.Root(), &local.ListAliasesInput{KeyID: strings.TrimPrefix(keyID, "local:")})
		}),
	}
	c.Flags().StringVar(&keyID, "key-id", "", "only those of this `KEY`: its ID, ARN or alias")
	return c
}
