package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"kmsfs/envelope"
	"kmsfs/kmsprovider"
)

// contextMismatch is that a message was left since its context is not the one
// that was demanded.
type contextMismatch struct {
	err   error
	keys  []string    // that are missing
	pairs [][2]string // whose key has another value
}

func (e *contextMismatch) Error() string { return e.err.Error() }
func (e *contextMismatch) Unwrap() error { return e.err }

// hintDecryption says what can be done about a message that does not open. The
// header is nil if it was not read, and is not authenticated.
func hintDecryption(err error, h *envelope.Header, o envelope.DecryptOptions) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, envelope.ErrCommitmentPolicy):
		return withHint(err, "older tools write such messages; if you trust where it is from: --commitment-policy require-encrypt-allow-decrypt")
	case errors.Is(err, envelope.ErrSigned):
		return withHint(err, "decrypt it without --decrypt-unsigned")
	case errors.Is(err, envelope.ErrTooManyKeys):
		return withHint(err, "--max-data-keys N allows more")
	case errors.Is(err, envelope.ErrTooLarge):
		return withHint(err, "--max-length BYTES allows more, and takes as much memory; a message that is not framed needs none where --output is a file")
	case h == nil:
		return err
	case errors.Is(err, envelope.ErrContext):
		return withHint(mismatch(err, h, o), "the message shows: %s", showContext(h.Context))
	case errors.Is(err, envelope.ErrNoKey) && hintOf(err) == "":
		return withHint(err, "%s", hintNoKey(h, o))
	}
	return err
}

// mismatch compares what was demanded with what the message has.
func mismatch(err error, h *envelope.Header, o envelope.DecryptOptions) error {
	m := &contextMismatch{err: err, keys: []string{}, pairs: [][2]string{}}
	for _, k := range o.ContextKeys {
		if _, ok := h.Context[k]; !ok {
			m.keys = append(m.keys, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(o.Context)) {
		if v, ok := h.Context[k]; !ok || v != o.Context[k] {
			m.pairs = append(m.pairs, [2]string{k, o.Context[k]})
		}
	}
	return m
}

// showContext is what a message shows of its context.
func showContext(c kmsprovider.Context) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if k != "aws-crypto-public-key" {
			pairs = append(pairs, printable(k)+"="+printable(c[k]))
		}
	}
	if len(pairs) == 0 {
		return "no pairs"
	}
	return firstFew(pairs)
}

// hintNoKey names the keys that a message is wrapped under, and a pair that it
// may not be bound to.
func hintNoKey(h *envelope.Header, o envelope.DecryptOptions) string {
	var keys []string
	for _, k := range h.Keys {
		name := printable(string(k.Info))
		if k.Provider != "aws-kms" {
			raw, _, _ := bytes.Cut(k.Info, rawAESInfo)
			name = fmt.Sprintf("namespace=%s,name=%s", printable(k.Provider), printable(string(raw)))
		}
		keys = append(keys, name)
	}
	hint := "it is wrapped under " + firstFew(keys)
	for _, k := range slices.Sorted(maps.Keys(o.Context)) {
		if _, shown := h.Context[k]; !shown {
			return fmt.Sprintf("%s; whether it is bound to %s=%s it does not show", hint, k, o.Context[k])
		}
	}
	return hint
}

// rawAESInfo is what follows the name of a raw AES key in a wrapped data key: the
// length of the tag in bits.
var rawAESInfo = []byte{0, 0, 0, 128}

// printable is text of a message as it may be shown: nobody has authenticated
// it, and it may hold what makes a terminal do things.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// firstFew joins what there is at most a line of.
func firstFew(parts []string) string {
	const few = 10
	if n := len(parts) - few; n > 0 {
		parts = append(slices.Clone(parts[:few]), fmt.Sprintf("and %d more", n))
	}
	return strings.Join(parts, ", ")
}
