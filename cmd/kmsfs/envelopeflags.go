package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// envelopeFlags are the flags that encrypt and decrypt share.
type envelopeFlags struct {
	keyringFlags
	context           []string
	policy            string
	maxDataKeys       int
	input, output     string
	suffix            string
	recursive         bool
	noOverwrite       bool
	metadata          string
	overwriteMetadata bool
	suppressMetadata  bool
}

const envelopeExitCodes = `Exit codes: 2 wrong usage, 20 no key opens it or the KMS denies it, 21 the key is
disabled or gone, 22 throttled, 23 the KMS cannot be reached, 25 the message is
damaged, forged, or not what was demanded, 1 anything else. Of a tree, the
highest one that a file had.`

// standardStream is a name for standard input and output.
const standardStream = "-"

func (f *envelopeFlags) register(flags *pflag.FlagSet) {
	f.keyringFlags.register(flags)
	flags.StringVarP(&f.input, "input", "i", standardStream, "`PATH` to read; - is standard input")
	flags.StringVarP(&f.output, "output", "o", standardStream, "`PATH` to write, or a directory to write to; - is standard output")
	flags.StringVar(&f.policy, "commitment-policy", "", "`POLICY`: require-encrypt-require-decrypt (default), require-encrypt-allow-decrypt or forbid-encrypt-allow-decrypt")
	flags.IntVar(&f.maxDataKeys, "max-data-keys", 0, "refuse messages with more than `N` wrapped data keys; also --max-encrypted-data-keys")
	flags.BoolVarP(&f.recursive, "recursive", "r", false, "take a directory as input, and all below it")
	flags.StringVar(&f.suffix, "suffix", suffixOfMode, "`SUFFIX` of the files in an output directory; may be empty")
	flags.Lookup("suffix").DefValue = ""
	flags.BoolVar(&f.noOverwrite, "no-overwrite", false, "keep files that exist")
	flags.StringVar(&f.metadata, "metadata-output", "", "append to `FILE` a JSON line about every message; - is standard output")
	flags.BoolVar(&f.overwriteMetadata, "overwrite-metadata", false, "replace that file")
	flags.BoolVarP(&f.suppressMetadata, "suppress-metadata", "S", false, "no metadata, as without --metadata-output")
	flags.SetNormalizeFunc(officialFlagName)
}

// suffixOfMode stands for the suffix that depends on the verb: no real one has
// a slash.
const suffixOfMode = "/"

// noInputArgument refuses arguments: they may be meant as pairs or as files.
func noInputArgument(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usagef("%s: one argument too many: %q", verbOf(cmd), args[0])
	if cmd.Flags().Changed("discovery") {
		return withHint(err, "files are named with --input and --output; a filter stands right after --discovery=")
	}
	return withHint(err, "files are named with --input and --output")
}

// check says what contradicts itself, before anything is opened.
func (f *envelopeFlags) check() error {
	for flag, value := range map[string]string{"--input": f.input, "--output": f.output} {
		if value == "" {
			return usagef("%s is empty", flag)
		}
	}
	switch {
	case f.maxDataKeys < 0:
		return usagef("--max-data-keys %d: want a number of keys", f.maxDataKeys)
	case f.suffix != suffixOfMode && strings.ContainsAny(f.suffix, "/\x00"):
		return usagef("--suffix %q: want the end of a file's name", f.suffix)
	case f.suppressMetadata && f.metadata != "":
		return usagef("--suppress-metadata and --metadata-output exclude each other")
	case f.overwriteMetadata && f.metadata == "":
		return usagef("--overwrite-metadata is about the file of --metadata-output, and there is none")
	case f.metadata == standardStream && f.output == standardStream:
		return usagef("--metadata-output and --output cannot both be standard output")
	}
	return nil
}

func (f *envelopeFlags) commitmentPolicy() (envelope.CommitmentPolicy, error) {
	if f.policy == "" {
		return envelope.RequireEncryptRequireDecrypt, nil
	}
	p, err := envelope.ParseCommitmentPolicy(f.policy)
	if err != nil {
		return p, usagef("--commitment-policy: %w", err)
	}
	return p, nil
}

// parseContext reads K=V and lone K.
func parseContext(given []string) (pairs kmsprovider.Context, lone []string, err error) {
	pairs = kmsprovider.Context{}
	for _, s := range given {
		k, v, found := strings.Cut(s, "=")
		if k == "" {
			return nil, nil, usagef("--encryption-context %q: want K=V", s)
		}
		if !found {
			lone = append(lone, k)
			continue
		}
		if _, twice := pairs[k]; twice {
			return nil, nil, usagef("--encryption-context: %q is there twice", k)
		}
		pairs[k] = v
	}
	return pairs, lone, nil
}

// discoveryValue is --discovery: alone, or with a filter; each adds to those
// before.
type discoveryValue []envelope.Discovery

const discoverAll = "all"

// Type is pflag.Value's.
func (d *discoveryValue) Type() string { return "filter" }

// String is pflag.Value's.
func (d *discoveryValue) String() string { return "" }

// Set is pflag.Value's: ACCOUNT, ACCOUNT:PARTITION or :PARTITION.
func (d *discoveryValue) Set(s string) error {
	if s == discoverAll {
		*d = append(*d, envelope.Discovery{})
		return nil
	}
	account, partition, _ := strings.Cut(s, ":")
	if account != "" && (len(account) != 12 || strings.Trim(account, "0123456789") != "") {
		return fmt.Errorf("account %q is not 12 digits", account)
	}
	if partition != "" && partition != "aws" && !strings.HasPrefix(partition, "aws-") {
		return fmt.Errorf("partition %q is not AWS's", partition)
	}
	if account == "" && partition == "" {
		return fmt.Errorf("want ACCOUNT:PARTITION")
	}
	*d = append(*d, envelope.Discovery{Account: account, Partition: partition})
	return nil
}
