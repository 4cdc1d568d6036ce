package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// askFor says what a passphrase is for.
type askFor int

const (
	askExisting askFor = iota // of a keystore that there is
	askNew                    // of one that is being made: typed twice
)

// passphraseSource gives the passphrase; the caller wipes it.
type passphraseSource func(ctx context.Context, what askFor) ([]byte, error)

// changingSource is a source that is exchanged: a mount asks its parent at first,
// and whoever unlocks it later.
type changingSource struct {
	mu     sync.Mutex
	source passphraseSource
}

// set exchanges the source; with nil nobody is asked.
func (c *changingSource) set(s passphraseSource) {
	c.mu.Lock()
	c.source = s
	c.mu.Unlock()
}

// ask is a passphraseSource.
func (c *changingSource) ask(ctx context.Context, what askFor) ([]byte, error) {
	c.mu.Lock()
	source := c.source
	c.mu.Unlock()
	if source == nil {
		return nil, errors.New("the mount is locked: nobody is asked for the passphrase")
	}
	return source(ctx, what)
}

// maxPassphrase bounds a passphrase, in bytes.
const maxPassphrase = 64 << 10

// credentialName is systemd's name for the passphrase: LoadCredential=kmsfs.passphrase:…
const credentialName = "kmsfs.passphrase"

// passphraseFor finds the passphrase of the keystore: what was given on the
// command line, then the environment, then systemd's credential, then people.
func (a *app) passphraseFor(keystore string) (passphraseSource, error) {
	if a.keys.passphraseFile != "" && a.keys.passphraseCommand != "" {
		return nil, usagef("--passphrase-file and --passphrase-command exclude each other")
	}
	if file := a.keys.passphraseFile; file != "" {
		return fromFile(file), nil
	}
	if command := a.keys.passphraseCommand; command != "" {
		return a.fromCommand(command), nil
	}
	if file := a.getenv("KMSFS_PASSPHRASE_FILE"); file != "" {
		return fromFile(file), nil
	}
	if dir := a.getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		file := filepath.Join(dir, credentialName)
		if _, err := os.Stat(file); err == nil {
			return fromFile(file), nil
		}
	}
	return func(ctx context.Context, what askFor) ([]byte, error) { return askTerminal(ctx, keystore, what) }, nil
}

func fromFile(path string) passphraseSource {
	return func(context.Context, askFor) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		defer f.Close()
		b, err := readPassphrase(f)
		if err != nil {
			return nil, fmt.Errorf("read passphrase from %s: %w", path, err)
		}
		return b, nil
	}
}

func (a *app) fromCommand(command string) passphraseSource {
	return func(ctx context.Context, _ askFor) ([]byte, error) {
		c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		c.Stdin, c.Stderr = a.stdin, a.stderr
		c.WaitDelay = time.Second
		out, err := c.StdoutPipe()
		if err != nil {
			return nil, fmt.Errorf("run passphrase command: %w", err)
		}
		if err := c.Start(); err != nil {
			return nil, fmt.Errorf("run passphrase command: %w", err)
		}
		// What the command has started may outlive it, and keep its output open.
		stop := context.AfterFunc(ctx, func() { out.Close() })
		b, readErr := readPassphrase(out)
		stop()
		if readErr != nil {
			_ = c.Process.Kill() // it may have more to say than anyone reads
		}
		waitErr := c.Wait()
		if readErr == nil && waitErr == nil {
			return b, nil
		}
		clear(b)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("passphrase command %q: %w", command, err)
		}
		if waitErr != nil && !errors.Is(readErr, errTooLong) {
			return nil, fmt.Errorf("passphrase command %q: %w", command, waitErr)
		}
		return nil, fmt.Errorf("passphrase command %q: %w", command, readErr)
	}
}

var (
	errEmptyPassphrase = errors.New("the passphrase is empty")
	errTooLong         = fmt.Errorf("longer than %d bytes", maxPassphrase)
)

// readPassphrase reads a passphrase and drops the newline after it.
func readPassphrase(r io.Reader) ([]byte, error) {
	// Room for all at once: a buffer that grew would leave copies behind.
	buf := make([]byte, maxPassphrase+2)
	n, err := io.ReadFull(r, buf)
	if err == nil {
		clear(buf)
		return nil, errTooLong
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		clear(buf)
		return nil, err
	}
	b := bytes.TrimSuffix(buf[:n], []byte("\n"))
	b = bytes.TrimSuffix(b, []byte("\r"))
	if len(b) == 0 {
		return nil, errEmptyPassphrase
	}
	return b, nil
}
