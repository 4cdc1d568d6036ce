package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"
)

// askTerminal asks for the passphrase on the controlling terminal, whatever
// stdin and stderr are connected to.
func askTerminal(ctx context.Context, keystore string, what askFor) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, withHint(
			fmt.Errorf("no passphrase for keystore %s: none was given, and there is no terminal to ask on", keystore),
			"give it with --passphrase-file, --passphrase-command, -o passphrase-file=FILE or KMSFS_PASSPHRASE_FILE, or as the systemd credential %s", credentialName)
	}
	defer tty.Close()
	if what == askExisting {
		return readLine(ctx, tty, "passphrase of keystore "+keystore+": ")
	}
	first, err := readLine(ctx, tty, "new passphrase for keystore "+keystore+": ")
	if err != nil {
		return nil, err
	}
	second, err := readLine(ctx, tty, "the same again: ")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = errors.New("the two passphrases differ")
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}

// readLine reads a line that is not shown. When ctx ends, by Ctrl-C for one,
// the terminal is put back as it was.
func readLine(ctx context.Context, tty *os.File, prompt string) ([]byte, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("ask on the terminal: %w", err)
	}
	type line struct {
		b   []byte
		err error
	}
	read := make(chan line, 1)
	fmt.Fprint(tty, prefix+prompt)
	go func() {
		b, err := term.ReadPassword(fd)
		read <- line{b, err}
	}()
	defer fmt.Fprintln(tty)
	select {
	case l := <-read:
		if l.err == nil && len(l.b) == 0 {
			l.err = errEmptyPassphrase
		}
		return l.b, l.err
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return nil, fmt.Errorf("ask on the terminal: %w", ctx.Err())
	}
}
