package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
	"kmsfs/kmsprovider/local/audit"
)

func (a *app) auditCommand() *cobra.Command {
	var follow, verify bool
	c := &cobra.Command{
		Use:   "audit [--follow | --verify]",
		Short: "Print the event log of the local KMS, or check it",
		Long: "Audit prints the events of the local KMS, one JSON line each, in the shape of CloudTrail's. That needs no passphrase.\n\n" +
			"With --verify it checks that no line was changed, removed or added since it was written, and prints what it found instead; " +
			"if it found something, the exit code is 25.",
		Args: positional(),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if follow && verify {
				return usagef("%s: --follow and --verify exclude each other", verbOf(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if verify {
				return a.withKeystore(cmd.Context(), keystoreRequired, a.verifyAudit)
			}
			return a.printAudit(cmd.Context(), follow)
		},
	}
	c.Flags().BoolVar(&follow, "follow", false, "go on with the events that come, until interrupted")
	c.Flags().BoolVar(&verify, "verify", false, "check the log")
	return c
}

// printAudit prints the log's lines as they are.
func (a *app) printAudit(ctx context.Context, follow bool) error {
	keystore, err := a.keystorePath()
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(keystore); err == nil {
		keystore = real
	}
	path := local.AuditPath(keystore)
	line := func(b []byte) error {
		if _, err := a.stdout.Write(b); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	if follow {
		return audit.Follow(ctx, path, line)
	}
	return noAuditYet(audit.Read(path, line))
}

// verifyAudit is kms audit --verify.
func (a *app) verifyAudit(_ context.Context, k *local.Keystore) error {
	report, err := k.VerifyAudit()
	for _, problem := range report.Problems {
		say(a.stderr, "%s", problem)
	}
	if err != nil {
		return noAuditYet(err)
	}
	for _, repair := range report.Repairs {
		say(a.stderr, "%s", repair)
	}
	_, err = fmt.Fprintf(a.stdout, "%d events from %s to %s, none changed, removed or added\n", report.Events, report.First, report.Last)
	return err
}

func noAuditYet(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return withHint(err, "the log begins with the first call of the KMS")
	}
	return err
}
