package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"kmsfs/kmsprovider"
	"kmsfs/kmsprovider/local"
	"kmsfs/volume"
)

// All that is said to people goes to stderr, in lines that start with prefix,
// in lower case; what they can do about it follows after hintPrefix.
const (
	prefix     = "kmsfs: "
	hintPrefix = "hint: "
)

// say prints a message.
func say(w io.Writer, format string, args ...any) {
	printLines(w, prefix, fmt.Sprintf(format, args...))
}

// sayError prints an error and its hint.
func sayError(w io.Writer, err error) {
	printLines(w, prefix, err.Error())
	if h := hintOf(err); h != "" {
		printLines(w, hintPrefix, h)
	}
}

func printLines(w io.Writer, before, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "%s%s\n", before, strings.TrimRight(line, "\r\n"))
	}
}

// hintError is an error with what can be done about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }
func (e *hintError) Hint() string  { return e.hint }

// withHint adds a hint to err.
func withHint(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// hintOf is the hint that err carries, as those of providers do, or the usual
// one for its cause.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		return h.Hint()
	}
	if h := copyHint(err); h != "" {
		return h
	}
	var inUse *volume.InUseError
	switch {
	case errors.As(err, &inUse) && inUse.Mountpoint != "":
		return "use it there, or unmount it first: kmsfs unmount " + inUse.Mountpoint
	case errors.Is(err, volume.ErrNotVolume):
		return "make a volume in an empty directory: kmsfs init BACKING"
	case errors.Is(err, volume.ErrExists):
		return "a volume is made in a new or empty directory; put files in through the mount afterwards"
	case errors.Is(err, volume.ErrFingerprint):
		return "somebody may have replaced the volume; if you did so yourself, mount it once with --trust-new"
	case errors.Is(err, volume.ErrOlder):
		return "somebody may have put keys back that were given up; read it with --ro, or if you restored it yourself, mount it once with --trust-new and rewrap it"
	case errors.Is(err, local.ErrNoKeystore):
		return "name it with --keystore FILE or KMSFS_KEYSTORE; kmsfs init without --key and kmsfs kms create-key make one"
	case errors.Is(err, kmsprovider.ErrKeyDisabled):
		return "see its state with kmsfs kms describe-key, enable it with kmsfs kms enable-key"
	case errors.Is(err, kmsprovider.ErrKeyNotFound):
		return "see what keys there are with kmsfs kms list-keys and list-aliases"
	}
	return ""
}
