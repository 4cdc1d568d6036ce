package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/kmsprovider/local"
	"kmsfs/kmsserver"
)

const (
	defaultListen = "127.0.0.1:4599"
	freePort      = "127.0.0.1:0"
)

// commandGrace is how long a command may take to end after SIGTERM.
const commandGrace = 10 * time.Second

// serveKMSRequest is what kms serve was asked for.
type serveKMSRequest struct {
	listen  string
	auth    kmsserver.Auth
	command []string // to run against the server; none: serve until a signal
}

func (a *app) serveKMSCommand() *cobra.Command {
	r := serveKMSRequest{}
	var auth string
	c := &cobra.Command{
		Use:   "serve [flags] [-- COMMAND ARG...]",
		Short: "Serve the local KMS over AWS's protocol, to any SDK or CLI",
		Long: "Serve answers AWS's KMS protocol on a loopback address or a Unix socket until SIGTERM or SIGINT, " +
			"and then finishes the requests under way. The keystore is made if it is missing.\n\n" +
			"With a COMMAND it serves on a free port, runs the command with AWS_ENDPOINT_URL_KMS set, and exits as the command does.",
		Args: cobra.ArbitraryArgs,
		PreRunE: func(cmd *cobra.Command, args []string) error {
			switch auth {
			case "sigv4":
				r.auth = kmsserver.AuthSigV4
			case "none":
				r.auth = kmsserver.AuthNone
			default:
				return usagef("%s: --auth %q is neither sigv4 nor none", verbOf(cmd), auth)
			}
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return withHint(usagef("%s: one argument too many: %q", verbOf(cmd), args[0]), "a command follows after --")
			}
			if r.command = args; len(args) > 0 && !cmd.Flags().Changed("listen") {
				r.listen = freePort
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serveKMS(cmd.Context(), r) },
	}
	c.Flags().StringVar(&r.listen, "listen", defaultListen, "loopback `ADDRESS` with its port, or unix:PATH")
	c.Flags().StringVar(&auth, "auth", "sigv4", "sigv4: callers sign with a principal's access key; none: every caller is the account's root")
	return c
}

func (a *app) serveKMS(ctx context.Context, r serveKMSRequest) error {
	// Before the passphrase is asked for: the address may be in use.
	l, err := kmsserver.Listen(ctx, r.listen)
	if errors.Is(err, kmsserver.ErrAddress) {
		return &causeError{err, errUsage}
	}
	if err != nil {
		return err
	}
	defer l.Close()
	return a.withKeystore(ctx, makeKeystore, func(ctx context.Context, k *local.Keystore) error {
		return a.serveKeystore(ctx, k, l, r)
	})
}

// serveKeystore serves k on l until ctx ends, or the command does.
func (a *app) serveKeystore(ctx context.Context, k *local.Keystore, l net.Listener, r serveKMSRequest) error {
	log, _ := newLog(a.stderr, slog.LevelInfo)
	s := kmsserver.New(kmsserver.Options{KMS: k, Auth: r.auth, Log: log})
	endpoint := "http://" + l.Addr().String()
	if l.Addr().Network() == "unix" {
		endpoint = "unix:" + l.Addr().String()
	}
	who := "callers sign with the keys of principals (kmsfs kms create-principal)"
	if r.auth == kmsserver.AuthNone {
		who = "without signatures: whoever reaches it is the account's root"
	}
	say(a.stderr, "serving the KMS of %s at %s, %s", k.Path(), endpoint, who)
	if len(r.command) == 0 {
		return s.Serve(ctx, l)
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- s.Serve(serving, l) }()
	err := a.runAgainst(ctx, endpoint, r)
	stop()
	return errors.Join(err, <-served)
}

// runAgainst runs the command with the server as its KMS.
func (a *app) runAgainst(ctx context.Context, endpoint string, r serveKMSRequest) error {
	c := exec.CommandContext(ctx, r.command[0], r.command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = a.stdin, a.stdout, a.stderr
	c.Env = append(os.Environ(), "AWS_ENDPOINT_URL_KMS="+endpoint)
	// SDKs want a region, and credentials even where nobody looks at them.
	if a.getenv("AWS_REGION") == "" && a.getenv("AWS_DEFAULT_REGION") == "" {
		c.Env = append(c.Env, "AWS_REGION=local", "AWS_DEFAULT_REGION=local")
	}
	if r.auth == kmsserver.AuthNone && a.getenv("AWS_ACCESS_KEY_ID") == "" && a.getenv("AWS_PROFILE") == "" {
		c.Env = append(c.Env, "AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none")
	}
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = commandGrace
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		a.silent = true
		return &commandError{exit.ExitCode()}
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", r.command[0], err)
	}
	return nil
}

// commandError is the end of a command that was run: its exit code is ours.
type commandError struct{ code int }

func (e *commandError) Error() string { return fmt.Sprintf("the command exited with %d", e.code) }
