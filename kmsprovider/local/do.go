package local

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"kmsfs/kmsprovider"
)

// call is one call of an operation under way.
type call struct {
	k      *Keystore
	caller Caller
	in     Input
	op     operation
	now    time.Time

	state *snapshot // the newest state, which never changes
	doc   *document // for operations that change: the copy they edit
	needs []need
	key   *openKey // of the first need
	// after, if set, runs when the state is unlocked again, before the answer
	// is given: for what takes long.
	after func() error

	out      any  // of perform
	recorded bool // the success stands in the audit log already
}

// Do performs the operation in for the caller: it checks the request, decides
// whether the caller may, checks the key's state, performs it, and writes the
// audit log. Every use of a key goes through here. The result is a pointer to
// the operation's struct XxxOutput, or nil where it has none; secrets in it are
// the caller's to wipe. Errors match an *Error, or ctx.Err.
//
// When an operation that changes something returns nil, the change is durable.
func (k *Keystore) Do(ctx context.Context, caller Caller, in Input) (any, error) {
	c := &call{k: k, caller: caller, in: in, op: in.operation(), now: k.timestamp()}
	err := c.attempt(ctx)
	if err == nil && c.op.dryRun {
		err = refuse(codeDryRun, "The request would have succeeded, but the DryRun option is set.")
	}
	if err != nil {
		err = asError(ctx, err)
	}
	if !c.recorded || err != nil {
		if failed := c.record(ctx, err); failed != nil && err == nil {
			err = failed
		}
	}
	if err != nil {
		wipeOutput(c.out)
		return nil, err
	}
	return c.out, nil
}

// attempt performs the call but for the audit log's last word.
func (c *call) attempt(ctx context.Context) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	if in, ok := c.in.(checker); ok {
		if err := in.check(); err != nil {
			return err
		}
	}
	if c.op.changes {
		return c.change(ctx)
	}
	c.state, err = c.k.acquire(ctx)
	if err != nil {
		return err
	}
	err = c.run()
	c.k.mu.RUnlock()
	if err == nil && c.after != nil {
		err = c.after()
	}
	return err
}

// change performs an operation that changes the keystore. Its success is in
// the audit log before the change is: there is none without a trace.
func (c *call) change(ctx context.Context) error {
	if err := c.k.settleIfDue(ctx); err != nil {
		return err
	}
	return c.k.update(ctx, func(state *snapshot, d *document) error {
		c.state, c.doc = state, d
		err := c.run()
		if err == nil && c.op.dryRun {
			err = errUnchanged
		}
		return err
	}, func() error {
		c.recorded = true
		return c.record(ctx, nil)
	})
}

// run checks and performs the call on the state, which is locked for reading.
func (c *call) run() (err error) {
	if err := c.authorize(); err != nil {
		return err
	}
	c.out, err = c.in.perform(c)
	return err
}

// keyRecord returns the key's record in the document that is being changed.
func (c *call) keyRecord() *keyRecord {
	return c.doc.key(c.key.record.ID)
}

// account is the account that all is in.
func (c *call) account() string { return c.state.doc.Account }

// draw returns n random bytes.
func (k *Keystore) draw(what string, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(k.random, b); err != nil {
		clear(b)
		return nil, fmt.Errorf("draw %s: %w", what, err)
	}
	return b, nil
}

// drawHex returns n random bytes as hex digits.
func (k *Keystore) drawHex(what string, n int) (string, error) {
	b, err := k.draw(what, n)
	return hex.EncodeToString(b), err
}

// asError gives an error without a code that of a failure on the KMS's side.
func asError(ctx context.Context, err error) error {
	var e *Error
	if errors.As(err, &e) || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	cause := err
	if !errors.Is(err, kmsprovider.ErrUnavailable) {
		cause = errors.Join(kmsprovider.ErrUnavailable, err)
	}
	return refuse(codeInternal, "%v", err).of(cause)
}

// secretive is an output that holds secrets.
type secretive interface{ wipe() }

func wipeOutput(out any) {
	if s, ok := out.(secretive); ok {
		s.wipe()
	}
}

// do is Do for the account's root, for callers in this package.
func do[Output any](ctx context.Context, k *Keystore, in Input) (*Output, error) {
	out, err := k.Do(ctx, k.Root(), in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.operation().name, err)
	}
	typed, _ := out.(*Output)
	return typed, nil
}
