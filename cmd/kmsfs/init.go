package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

func (a *app) initCommand() *cobra.Command {
	var keys []string
	mode := string(volume.ModeFile)
	c := &cobra.Command{
		Use:   "init [flags] BACKING",
		Short: "Make an empty volume in BACKING",
		Long: `Init makes an empty volume in BACKING, a new or an empty directory. Without --key
its key is local:alias/kmsfs, and keystore, key and alias are made if they are
missing. With several keys any one of them opens the volume.`,
		Args: positional("BACKING"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.init(cmd.Context(), args[0], keys, mode) },
	}
	c.Flags().StringArrayVar(&keys, "key", nil, "`KEY` that wraps the volume key: local:alias/NAME, local:KEY-ID, the ARN of an AWS key or alias, or age:RECIPIENT (default local:"+local.DefaultAlias+")")
	c.Flags().StringVar(&mode, "key-mode", mode, "where data keys are from: `file`, each from the KMS, or volume, wrapped under the volume key")
	return c
}

func (a *app) init(ctx context.Context, dir string, keys []string, mode string) error {
	if err := harden(); err != nil {
		return err
	}
	keyMode, err := volume.ParseKeyMode(mode)
	if err != nil {
		return usagef("--key-mode: %w", err)
	}
	missing := keystoreRequired
	if len(keys) == 0 {
		keys, missing = []string{"local:" + local.DefaultAlias}, makeDefaultKey
	}
	var uris []kmsprovider.KeyURI
	for _, k := range keys {
		uri, err := kmsprovider.ParseKeyURI(k)
		if err != nil {
			return usagef("--key: %w", err)
		}
		if uri.Provider == "vault" {
			return unsupportedProvider(uri.Provider)
		}
		uris = append(uris, uri)
	}
	sources, err := a.keySources()
	if err != nil {
		return err
	}
	state, err := a.stateDir()
	if err != nil {
		return err
	}
	passphrase, err := a.passphraseFor(sources.Keystore)
	if err != nil {
		return err
	}
	note := func(format string, args ...any) { say(a.stderr, format, args...) }
	registry := sources.registry(passphrase, missing, note)
	defer registry.Close()
	info, err := volume.Init(ctx, dir, volume.InitOptions{Keys: uris, Mode: keyMode, Providers: registry, StateDir: state})
	if err != nil {
		return err
	}
	var ids []string
	for _, k := range info.Keys {
		ids = append(ids, k.KeyID)
	}
	say(a.stderr, "made volume %s in %s under %s", info.ID, info.Path, strings.Join(ids, ", "))
	return nil
}
