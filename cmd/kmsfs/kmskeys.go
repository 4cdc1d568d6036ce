package main

import (
	"context"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
)

func (a *app) createKeyCommand() *cobra.Command {
	var description, spec, usage, origin string
	c := &cobra.Command{
		Use:   "create-key [flags]",
		Short: "Make a key; the keystore too, if it is missing",
		Args:  positional(),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			for _, f := range []struct{ name, value, only string }{
				{"key-spec", spec, "SYMMETRIC_DEFAULT"}, {"key-usage", usage, "ENCRYPT_DECRYPT"}, {"origin", origin, "AWS_KMS"},
			} {
				if f.value != f.only {
					return usagef("%s: --%s %q is not supported, only %s is", verbOf(cmd), f.name, f.value, f.only)
				}
			}
			return nil
		},
		RunE: a.kmsVerb(makeKeystore, func(ctx context.Context, k *local.Keystore) (any, error) {
			return k.Do(ctx, k.Root(), &local.CreateKeyInput{Description: description})
		}),
	}
	flags := c.Flags()
	flags.StringVar(&description, "description", "", "what the key is for")
	flags.StringVar(&spec, "key-spec", "SYMMETRIC_DEFAULT", "kind of key")
	flags.StringVar(&usage, "key-usage", "ENCRYPT_DECRYPT", "what the key does")
	flags.StringVar(&origin, "origin", "AWS_KMS", "where its material is from")
	return c
}

func (a *app) listKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list-keys",
		Short: "List all keys",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return k.Do(ctx, k.Root(), &local.ListKeysInput{})
		}),
	}
}

func (a *app) describeKeyCommand() *cobra.Command {
	var keyID string
	c := &cobra.Command{
		Use:   "describe-key --key-id KEY",
		Short: "Show what is known of a key",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return k.Do(ctx, k.Root(), &local.DescribeKeyInput{KeyID: keyID})
		}),
	}
	keyIDFlag(c, &keyID, "key-id", "`KEY`: its ID, ARN or alias")
	return c
}

func (a *app) enableKeyCommand() *cobra.Command {
	var keyID string
	c := &cobra.Command{
		Use:   "enable-key --key-id KEY",
		Short: "Make a disabled key usable again",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return nil, k.EnableKey(ctx, keyID)
		}),
	}
	keyIDFlag(c, &keyID, "key-id", "`KEY`: its ID or ARN")
	return c
}

func (a *app) disableKeyCommand() *cobra.Command {
	var keyID string
	c := &cobra.Command{
		Use:   "disable-key --key-id KEY",
		Short: "Keep a key from being used, by every process at once",
		Args:  positional(),
		RunE: a.kmsVerb(keystoreRequired, func(ctx context.Context, k *local.Keystore) (any, error) {
			return nil, k.DisableKey(ctx, keyID)
		}),
	}
	keyIDFlag(c, &keyID, "key-id", "`KEY`: its ID or ARN")
	return c
}
