package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// From here on these signals end the context, and nothing else: whoever
	// must not be torn apart decides when to stop.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(exitCode(err))
}

// run is the command. What went wrong has been said on stderr when it returns.
// The first of args is the name that it was called by.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	a := &app{name: args[0], args: args[1:], stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, euid: os.Geteuid()}
	err := a.run(ctx)
	switch {
	case err == nil || a.silent:
	case errors.Is(err, context.Canceled):
		say(stderr, "interrupted")
	default:
		sayError(stderr, err)
	}
	return err
}
