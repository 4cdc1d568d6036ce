package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// message is what a frame between parent and daemon means.
type message byte

const (
	msgRequest    message = 'r' // parent: the mountRequest, JSON; the first one
	msgPassphrase message = 'p' // parent: the passphrase
	msgAsk        message = 'a' // daemon: wants the passphrase; one byte of askFor
	msgReady      message = 'o' // daemon: the mount serves; the last one
	msgFailed     message = 'e' // daemon: a daemonError, JSON; the last one
)

const maxMessage = 1 << 20

// link is one end of the socket pair. A frame is its message, the length of its
// payload as u32, and the payload.
type link struct{ f *os.File }

func (l link) send(m message, payload []byte) error {
	frame := make([]byte, 5+len(payload))
	defer clear(frame) // it may be the passphrase
	frame[0] = byte(m)
	binary.LittleEndian.PutUint32(frame[1:], uint32(len(payload)))
	copy(frame[5:], payload)
	_, err := l.f.Write(frame)
	return err
}

// receive returns the next frame; its payload is the caller's to wipe.
func (l link) receive() (message, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(l.f, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[1:])
	if n > maxMessage {
		return 0, nil, fmt.Errorf("message of %d bytes", n)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(l.f, payload); err != nil {
		clear(payload)
		return 0, nil, err
	}
	return message(head[0]), payload, nil
}

func (l link) sendJSON(m message, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return l.send(m, b)
}

// daemonError is an error that the daemon told its parent.
type daemonError struct {
	code int
	text string
}

func (e *daemonError) Error() string { return e.text }

// failure is how a daemonError travels.
type failure struct {
	Code int
	Text string
	Hint string
}

func failureOf(err error) *failure {
	return &failure{Code: exitCode(err), Text: err.Error(), Hint: hintOf(err)}
}

// err is the error as it arrives.
func (f *failure) err() error {
	failed := error(&daemonError{code: f.Code, text: f.Text})
	if f.Hint != "" {
		failed = withHint(failed, "%s", strings.TrimSpace(f.Hint))
	}
	return failed
}
