package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"kmsfs/envelope"
)

// decryptFlags are the flags of decrypt.
type decryptFlags struct {
	envelopeFlags
	unsigned  bool
	maxLength int
}

func (a *app) decryptCommand() *cobra.Command {
	var f decryptFlags
	c := &cobra.Command{
		Use:   "decrypt --key KEY [flags]",
		Short: "Decrypt AWS Encryption SDK messages, also those of the official tools",
		Long: `Decrypt opens what encrypt, aws-encryption-cli or another AWS Encryption SDK
wrote, with any one of the keys that are given, or with --discovery with
whatever KMS key the message names.

It works from standard input to standard output unless --input and --output say
otherwise. An output file comes to be when all of it has been verified, or not
at all. To a pipe plaintext goes frame by frame, each verified; whether the
message is whole and its signature right, shows at the end: where the exit code
is not 0, throw away what was written. Where --output is a directory, files in
it get the suffix .decrypted.

` + envelopeExitCodes,
		Args: noInputArgument,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.decrypt(cmd.Context(), f) },
	}
	flags := c.Flags()
	f.register(flags)
	flags.StringArrayVarP(&f.context, "encryption-context", "c", nil, "`K=V`… that the message must be bound to, shown in it or not; K alone must be there")
	discovery := flags.VarPF(&f.discovery, "discovery", "", "use whatever KMS key the message names, or only those of `ACCOUNT:PARTITION`")
	discovery.NoOptDefVal = discoverAll
	flags.BoolVar(&f.unsigned, "decrypt-unsigned", false, "refuse signed messages, so that nothing is written before it is known to be right")
	flags.IntVar(&f.maxLength, "max-length", 0, "refuse frames of more than `BYTES`")
	return c
}

func (a *app) decrypt(ctx context.Context, f decryptFlags) error {
	o := envelope.DecryptOptions{MaxDataKeys: f.maxDataKeys, MaxFrameLength: f.maxLength, RefuseSigned: f.unsigned}
	var err error
	if o.Policy, err = f.commitmentPolicy(); err != nil {
		return err
	}
	if f.maxLength < 0 {
		return usagef("--max-length %d: want a number of bytes", f.maxLength)
	}
	if o.Context, o.ContextKeys, err = parseContext(f.context); err != nil {
		return err
	}
	mode := "decrypt"
	if f.unsigned {
		mode = "decrypt-unsigned"
	}
	return a.withEnvelope(ctx, f.envelopeFlags, mode, func(k envelope.Keyring) codec {
		o.Keyring = k
		return func(ctx context.Context, dst io.Writer, src io.Reader, s stream) (*envelope.Header, error) {
			o := o // messages may be worked on at the same time
			o.Workers, o.Progress, o.Provisional = s.workers, s.progress, s.provisional
			h, err := envelope.Decrypt(ctx, dst, src, o)
			return h, hintDecryption(err, h, o)
		}
	})
}
