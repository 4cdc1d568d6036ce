package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// encryptFlags are the flags of encrypt.
type encryptFlags struct {
	envelopeFlags
	suite        string
	frameLength  int
	requiredKeys []string
}

func (a *app) encryptCommand() *cobra.Command {
	var f encryptFlags
	c := &cobra.Command{
		Use:   "encrypt --key KEY [flags]",
		Short: "Encrypt a file, a pipe or a tree into AWS Encryption SDK messages",
		Long: `Encrypt writes what it reads as a message of the AWS Encryption SDK: the data
encrypted under a new data key, and that data key wrapped by every --key and
--raw-key, each of which opens it. aws-encryption-cli and the official SDKs read
it.

It works from standard input to standard output unless --input and --output say
otherwise. An output file comes to be when it is whole, or not at all. Where
--output is a directory, files in it get the suffix .encrypted.

` + envelopeExitCodes,
		Args: noInputArgument,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.encrypt(cmd.Context(), f) },
	}
	flags := c.Flags()
	f.register(flags)
	flags.StringArrayVarP(&f.context, "encryption-context", "c", nil, "pairs `K=V`… that the message is bound to and shows")
	flags.StringArrayVar(&f.requiredKeys, "required-context-key", nil, "`K` of a pair that the message is bound to and does not show; decryption must be given it")
	flags.StringVar(&f.suite, "suite", "", "algorithm `SUITE`: 0x0578, signed (default), or 0x0478; also by its long name, also as --algorithm")
	flags.IntVar(&f.frameLength, "frame-length", 0, "`BYTES` of plaintext in a frame (default 65536)")
	return c
}

func (a *app) encrypt(ctx context.Context, f encryptFlags) error {
	o := envelope.EncryptOptions{FrameLength: f.frameLength, MaxDataKeys: f.maxDataKeys, RequiredContextKeys: f.requiredKeys}
	var err error
	if o.Policy, err = f.commitmentPolicy(); err != nil {
		return err
	}
	if f.suite != "" {
		if o.Suite, err = envelope.ParseSuite(f.suite); err != nil {
			return usagef("--suite: %w", err)
		}
	}
	if f.frameLength < 0 {
		return usagef("--frame-length %d: want a number of bytes", f.frameLength)
	}
	pairs, lone, err := parseContext(f.context)
	if err != nil {
		return err
	}
	if len(lone) > 0 {
		return usagef("--encryption-context %q: want K=V", lone[0])
	}
	o.Context = pairs
	if err := checkRequiredKeys(f.requiredKeys, pairs); err != nil {
		return err
	}
	return a.withEnvelope(ctx, f.envelopeFlags, "encrypt", func(k envelope.Keyring) codec {
		o.Keyring = k
		return func(ctx context.Context, dst io.Writer, src io.Reader, s stream) (*envelope.Header, error) {
			o := o // messages may be worked on at the same time
			o.Workers, o.Progress = s.workers, s.progress
			h, err := envelope.Encrypt(ctx, dst, src, o)
			return h, encryptionRefused(err)
		}
	})
}

// encryptionRefused makes errors about what was asked for those of usage: there
// is no message yet that could be at fault.
func encryptionRefused(err error) error {
	for _, cause := range []error{envelope.ErrContext, envelope.ErrCommitmentPolicy, envelope.ErrTooManyKeys, envelope.ErrTooLarge} {
		if errors.Is(err, cause) {
			return &causeError{err, errUsage}
		}
	}
	return err
}

func checkRequiredKeys(keys []string, pairs kmsprovider.Context) error {
	for _, k := range keys {
		if _, ok := pairs[k]; !ok {
			return withHint(usagef("--required-context-key %q is in no pair", k), "give the pair too: --encryption-context %s=VALUE", k)
		}
	}
	return nil
}
