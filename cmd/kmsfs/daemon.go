package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// daemon serves the mount that the parent asks for. Until it serves, stderr is
// the parent's.
func (a *app) daemon(ctx context.Context) error {
	if err := harden(); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGHUP)
	unix.CloseOnExec(linkFD)
	l := link{os.NewFile(linkFD, "link to parent")}
	r, err := receiveRequest(l)
	if err != nil {
		return withHint(usagef("--daemon is for kmsfs itself: %w", err), "run kmsfs mount without it")
	}
	log, out := newLog(a.stderr, r.LogLevel)
	serving := false
	err = serve(ctx, r, l.askParent, log, func() error {
		if err := releaseStreams(); err != nil {
			return err
		}
		out.toSyslog()
		serving = true
		defer l.f.Close()
		if err := l.send(msgReady, nil); err != nil {
			return fmt.Errorf("nobody waits for the mount any more: %w", err)
		}
		return nil
	}, false)
	a.silent = true
	switch {
	case err == nil:
	case serving:
		log.Error("the mount did not end cleanly", "error", err)
	default:
		_ = l.sendJSON(msgFailed, failureOf(err))
	}
	return err
}

func receiveRequest(l link) (*mountRequest, error) {
	m, payload, err := l.receive()
	if err != nil {
		return nil, err
	}
	if m != msgRequest {
		return nil, errors.New("no request")
	}
	r := new(mountRequest)
	return r, json.Unmarshal(payload, r)
}

// askParent is a passphraseSource.
func (l link) askParent(_ context.Context, what askFor) ([]byte, error) {
	if err := l.send(msgAsk, []byte{byte(what)}); err != nil {
		return nil, fmt.Errorf("ask the parent: %w", err)
	}
	m, payload, err := l.receive()
	if err != nil {
		return nil, fmt.Errorf("ask the parent: %w", err)
	}
	if m != msgPassphrase {
		clear(payload)
		return nil, errors.New("ask the parent: no passphrase came")
	}
	return payload, nil
}

// releaseStreams lets go of what the parent lent us: whoever waits for the end
// of its output must not wait for the daemon's.
func releaseStreams() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("release streams: %w", err)
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return fmt.Errorf("release streams: %w", err)
		}
	}
	return nil
}
