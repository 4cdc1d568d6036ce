package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// keyringFlags say with which keys data keys are wrapped and opened.
type keyringFlags struct {
	keys      []string
	raw       []string
	wrapping  []string // the official command's notation of keys and discovery
	discovery discoveryValue
}

func (f *keyringFlags) register(flags *pflag.FlagSet) {
	flags.StringArrayVar(&f.keys, "key", nil, "`KEY` of a KMS: the ARN of a key or alias, local:alias/NAME or local:KEY-ID")
	flags.StringArrayVar(&f.raw, "raw-key", nil, "wrapping key in a file, as `SPEC`: namespace=NS,name=NAME,algorithm=AES|RSA-OAEP-SHA256|…,file=PATH")
	flags.StringArrayVarP(&f.wrapping, "wrapping-keys", "w", nil, "keys as aws-encryption-cli has them: key=`KEY` or discovery=true")
}

// resolve merges the official notation into the other flags and checks what is
// there against what is to be done.
func (f *keyringFlags) resolve(mode string) error {
	if err := f.readWrapping(); err != nil {
		return err
	}
	switch encrypt := mode == "encrypt"; {
	case encrypt && len(f.discovery) > 0:
		return usagef("discovery is for decryption: encryption needs to be told its keys")
	case len(f.discovery) > 0 && len(f.keys) > 0:
		return usagef("--discovery and --key exclude each other")
	case len(f.keys)+len(f.raw)+len(f.discovery) > 0:
		return nil
	case encrypt:
		return withHint(usagef("encrypt: no wrapping key is given"), "give --key KEY, such as local:alias/NAME or the ARN of an AWS key, or --raw-key SPEC")
	}
	return withHint(usagef("decrypt: no wrapping key is given"), "give --key KEY, --raw-key SPEC, or --discovery to use whatever KMS key the message names")
}

// readWrapping reads what --wrapping-keys was given. Its filter of discovery is
// one partition and any number of accounts.
func (f *keyringFlags) readWrapping() error {
	discover, partition := false, ""
	var accounts []string
	for _, s := range f.wrapping {
		name, value, found := strings.Cut(s, "=")
		if !found || value == "" {
			return usagef("--wrapping-keys %q: want key=KEY", s)
		}
		switch name {
		case "key":
			f.keys = append(f.keys, value)
		case "discovery":
			switch strings.ToLower(value) {
			case "true", "t", "1", "yes", "y":
				discover = true
			case "false", "f", "0", "no", "n":
			default:
				return usagef("--wrapping-keys %q: want true or false", s)
			}
		case "discovery-account":
			accounts = append(accounts, value)
		case "discovery-partition":
			partition = value
		case "provider":
			if value != "aws-kms" && value != "aws-encryption-sdk-cli::aws-kms" {
				return withHint(usagef("--wrapping-keys %q: the only provider is aws-kms", s), "keys in files are given with --raw-key")
			}
		case "region", "profile":
			return withHint(usagef("--wrapping-keys %q is not supported", s), "name keys by their ARN, and set AWS_PROFILE or AWS_REGION")
		default:
			return usagef("--wrapping-keys: unknown %q", name)
		}
	}
	switch {
	case !discover && (len(accounts) > 0 || partition != ""):
		return usagef("--wrapping-keys: discovery-account and discovery-partition need discovery=true")
	case discover && len(accounts) == 0:
		accounts = []string{""}
	}
	for _, account := range accounts {
		filter := account + ":" + partition
		if filter == ":" {
			filter = discoverAll
		}
		if err := f.discovery.Set(filter); err != nil {
			return usagef("--wrapping-keys: %w", err)
		}
	}
	return nil
}

// keyring opens what the keys need, so that a passphrase is asked for before
// anything is read or written. The caller closes the registry.
func (a *app) keyring(ctx context.Context, f keyringFlags, all bool) (_ envelope.Keyring, _ *kmsprovider.Registry, err error) {
	sources, err := a.keySources()
	if err != nil {
		return nil, nil, err
	}
	passphrase, err := a.passphraseFor(sources.Keystore)
	if err != nil {
		return nil, nil, err
	}
	registry := sources.registry(passphrase, keystoreRequired, func(string, ...any) {})
	defer func() {
		if err != nil {
			err = errors.Join(err, registry.Close())
		}
	}()
	open := a.openKey(registry)
	var rings []envelope.Keyring
	if len(f.keys) > 0 {
		ring, err := kmsKeyring(ctx, open, f.keys, all)
		if err != nil {
			return nil, nil, err
		}
		rings = append(rings, ring)
	}
	for _, filter := range f.discovery {
		rings = append(rings, envelope.NewDiscoveryKeyring(open, filter))
	}
	for _, spec := range f.raw {
		ring, err := envelope.ParseRawKey(spec)
		if err != nil {
			return nil, nil, &causeError{err, errUsage}
		}
		rings = append(rings, ring)
	}
	if len(rings) == 1 {
		return rings[0], registry, nil
	}
	return envelope.NewMultiKeyring(rings[0], rings[1:]...), registry, nil
}

// kmsKeyring is the keyring of KMS keys. With all, every one of them must be
// usable, else one.
func kmsKeyring(ctx context.Context, open envelope.OpenProvider, keys []string, all bool) (envelope.Keyring, error) {
	var uris []kmsprovider.KeyURI
	var failed []error
	for _, k := range keys {
		uri, err := kmsprovider.ParseKeyURI(k)
		if err != nil {
			return nil, usagef("--key: %w", err)
		}
		if uri.Provider == "age" || uri.Provider == "vault" {
			return nil, withHint(usagef("--key %s: no AWS Encryption SDK knows such keys", uri), "use local:alias/NAME, the ARN of an AWS key, or --raw-key")
		}
		if _, err := open(ctx, uri); err != nil {
			failed = append(failed, err)
		}
		uris = append(uris, uri)
	}
	if len(failed) == len(uris) || all && len(failed) > 0 {
		return nil, failed[0]
	}
	return envelope.NewKMSKeyring(open, uris)
}

// openKey gives the provider of a key. AWS has no region "local": an ARN with it
// is of the local KMS, and asked for there unless the user named an endpoint.
func (a *app) openKey(registry *kmsprovider.Registry) envelope.OpenProvider {
	return func(ctx context.Context, uri kmsprovider.KeyURI) (kmsprovider.Provider, error) {
		part := strings.Split(uri.KeyID, ":")
		endpoint := firstOf(a.getenv("AWS_ENDPOINT_URL_KMS"), a.getenv("AWS_ENDPOINT_URL"))
		if uri.Provider == "aws" && len(part) > 3 && part[3] == "local" && endpoint == "" {
			return registry.Provider(ctx, "local")
		}
		return registry.Provider(ctx, uri.Provider)
	}
}
