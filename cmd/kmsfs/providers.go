package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/pflag"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
)

// keyFlags are the flags that all subcommands have which may need a key.
type keyFlags struct {
	keystore          string
	passphraseFile    string
	passphraseCommand string
}

func (k *keyFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&k.keystore, "keystore", "", "`FILE` of the local KMS (default $KMSFS_KEYSTORE, or kmsfs/keystore.json in the data directory)")
	flags.StringVar(&k.passphraseFile, "passphrase-file", "", "`FILE` that holds the keystore's passphrase")
	flags.StringVar(&k.passphraseCommand, "passphrase-command", "", "shell `COMMAND` that prints the keystore's passphrase")
}

// ifMissing is what to do where there is no keystore.
type ifMissing int

const (
	keystoreRequired ifMissing = iota
	makeKeystore               // make an empty one
	makeDefaultKey             // make one, and the key that local:alias/kmsfs names
)

// providers makes the registry of key providers. Nothing is opened, and no
// passphrase asked for, before a key is needed.
func providers(keystore string, passphrase passphraseSource, missing ifMissing, note func(format string, args ...any)) *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	r.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) {
		return openKeystore(ctx, keystore, passphrase, missing, note)
	})
	for _, later := range []string{"aws", "age", "vault"} {
		r.Register(later, func(context.Context) (kmsprovider.Provider, error) { return nil, unsupportedProvider(later) })
	}
	return r
}

func unsupportedProvider(name string) error {
	return withHint(usagef("%s keys are not supported yet by this build", name), "use a key of the local KMS: local:alias/NAME")
}

// openKeystore opens the local KMS in the file keystore.
func openKeystore(ctx context.Context, keystore string, passphrase passphraseSource, missing ifMissing, note func(format string, args ...any)) (_ *local.Keystore, err error) {
	o := local.Options{Path: keystore, Passphrase: func() ([]byte, error) { return passphrase(ctx, askExisting) }}
	k, err := local.Open(ctx, o)
	if errors.Is(err, local.ErrNoKeystore) && missing != keystoreRequired {
		o.Passphrase = func() ([]byte, error) { return passphrase(ctx, askNew) }
		if k, err = local.Create(ctx, o); err == nil {
			note("made keystore %s: keep it and its passphrase safe, what is encrypted is lost without them", keystore)
		}
	}
	if err != nil {
		return nil, err
	}
	if missing == makeDefaultKey {
		if _, err := k.EnsureDefaultKey(ctx); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

// keystorePath is the keystore's file, absolute.
func (a *app) keystorePath() (string, error) {
	path := a.keys.keystore
	if path == "" {
		path = a.getenv("KMSFS_KEYSTORE")
	}
	if path != "" {
		return filepath.Abs(path)
	}
	if dir := a.getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kmsfs", "keystore.json"), nil
	}
	if home := a.home(); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "kmsfs", "keystore.json"), nil
	}
	return "", withHint(errors.New("no keystore: no home directory is known"), "name it with --keystore FILE, -o keystore=FILE or KMSFS_KEYSTORE")
}
