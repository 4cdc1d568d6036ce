package main

import (
	"context"
	"errors"
	"io"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func newLinks(t *testing.T) (parent, daemon link) {
	t.Helper()
	a, b, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return link{a}, link{b}
}

func TestADaemonGetsTheRequestAndThePassphrase(t *testing.T) {
	parent, daemon := newLinks(t)
	want := &mountRequest{Backing: "/enc", Mountpoint: "/mnt", KernelOptions: []string{"noexec"}, ReadOnly: true, LogLevel: -4}
	done := make(chan error, 1)
	go func() {
		a := &app{}
		done <- a.converse(context.Background(), parent, want, func(_ context.Context, what askFor) ([]byte, error) {
			if what != askExisting {
				return nil, errors.New("asked for something else")
			}
			return []byte(testPassphrase), nil
		})
	}()
	got, err := receiveRequest(daemon)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("request %+v, %v, want %+v", got, err, want)
	}
	secret, err := daemon.askParent(t.Context(), askExisting)
	if err != nil || string(secret) != testPassphrase {
		t.Fatalf("passphrase %q, %v", secret, err)
	}
	if err := daemon.send(msgReady, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAParentGetsTheDaemonsErrorCodeAndHint(t *testing.T) {
	parent, daemon := newLinks(t)
	if err := daemon.sendJSON(msgFailed, failure{Code: 24, Text: "changed", Hint: "look"}); err != nil {
		t.Fatal(err)
	}
	err := (&app{}).converse(t.Context(), parent, &mountRequest{}, nil)
	if exitCode(err) != 24 || err.Error() != "changed" || hintOf(err) != "look" {
		t.Fatalf("%v, code %d, hint %q", err, exitCode(err), hintOf(err))
	}
}

func TestADaemonThatDiesOrBabblesIsAnError(t *testing.T) {
	parent, daemon := newLinks(t)
	daemon.f.Close()
	if err := (&app{}).converse(t.Context(), parent, &mountRequest{}, nil); err == nil {
		t.Error("a dead daemon is ready")
	}
	for _, bytes := range []string{"x\x00\x00\x00\x00", "o\xff\xff\xff\xff", "a\x00\x00\x00\x00", "e\x01\x00\x00\x00{", "o\x00"} {
		parent, daemon := newLinks(t)
		if _, err := io.WriteString(daemon.f, bytes); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(int(daemon.f.Fd()), unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		err := (&app{}).converse(t.Context(), parent, &mountRequest{}, nil)
		if err == nil {
			t.Errorf("%q: %v", bytes, err)
		}
	}
}
