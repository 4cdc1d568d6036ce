package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/age"
	"kmsfs/kmsprovider/aws"
	"kmsfs/kmsprovider/local"
)

// keyFlags are the flags that all subcommands have which may need a key.
type keyFlags struct {
	keystore          string
	passphraseFile    string
	passphraseCommand string
	ageIdentity       string
	deadline          time.Duration
}

func (k *keyFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&k.keystore, "keystore", "", "`FILE` of the local KMS (default $KMSFS_KEYSTORE, or kmsfs/keystore.json in the data directory)")
	flags.StringVar(&k.passphraseFile, "passphrase-file", "", "`FILE` that holds the keystore's passphrase")
	flags.StringVar(&k.passphraseCommand, "passphrase-command", "", "shell `COMMAND` that prints the keystore's passphrase")
	flags.StringVar(&k.ageIdentity, "age-identity", "", "`FILE` of age identities, which open what was wrapped for age:RECIPIENT (default $KMSFS_AGE_IDENTITY)")
	flags.DurationVar(&k.deadline, "kms-deadline", 0, "`DURATION` that a call may wait for the KMS (default 30s)")
}

// keySources says where keys are, in paths and times that mean the same in a
// daemon.
type keySources struct {
	Keystore    string        // file of the local KMS
	AgeIdentity string        // file; empty: none
	KMSDeadline time.Duration // 0: the default
}

// keySources checks what flags and environment say.
func (a *app) keySources() (s keySources, err error) {
	if s.KMSDeadline = a.keys.deadline; s.KMSDeadline < 0 {
		return s, usagef("--kms-deadline %v: want a time that passes", s.KMSDeadline)
	}
	if identity := firstOf(a.keys.ageIdentity, a.getenv("KMSFS_AGE_IDENTITY")); identity != "" {
		if s.AgeIdentity, err = filepath.Abs(identity); err != nil {
			return s, err
		}
	}
	s.Keystore, err = a.keystorePath()
	return s, err
}

// ifMissing is what to do where there is no keystore.
type ifMissing int

const (
	keystoreRequired ifMissing = iota
	makeKeystore               // make an empty one
	makeDefaultKey             // make one, and the key that local:alias/kmsfs names
)

// registry makes the registry of key providers. Nothing is opened, and no
// passphrase asked for, before a key is needed.
func (s keySources) registry(passphrase passphraseSource, missing ifMissing, note func(format string, args ...any)) *kmsprovider.Registry {
	r := kmsprovider.NewRegistry()
	r.Register("local", func(ctx context.Context) (kmsprovider.Provider, error) {
		return openKeystore(ctx, s.Keystore, passphrase, missing, note)
	})
	r.Register("aws", func(context.Context) (kmsprovider.Provider, error) {
		return aws.New(aws.Options{Timeout: s.KMSDeadline}), nil
	})
	r.Register("age", func(context.Context) (kmsprovider.Provider, error) {
		if s.AgeIdentity == "" {
			return age.New(nil), nil
		}
		return age.New(age.FromFile(s.AgeIdentity)), nil
	})
	r.Register("vault", func(context.Context) (kmsprovider.Provider, error) { return nil, unsupportedProvider("vault") })
	return r
}

func unsupportedProvider(name string) error {
	return withHint(usagef("%s keys are not supported yet by this build", name), "use local:alias/NAME, the ARN of an AWS key, or age:RECIPIENT")
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
	if home := a.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "share", "kmsfs", "keystore.json"), nil
	}
	return "", withHint(errors.New("no keystore: HOME is not set"), "name it with --keystore FILE or KMSFS_KEYSTORE")
}
