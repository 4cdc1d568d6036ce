package local

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmsfs/kmsprovider"
)

// call is one call of an operation under way.
type call struct {
	k      *Keystore
	caller Caller
	op     operation
	now    time.Time
	state  *snapshot // the newest state, which never changes
	doc    *document // for operations that change: the copy they edit
	key    *openKey  // that op.key names
}

// Do performs the operation in for the caller: it checks the request, decides
// whether the caller may, checks the key's state, and performs it. Every use of
// a key goes through here. The result is a pointer to the operation's struct
// XxxOutput, or nil where it has none; secrets in it are the caller's to wipe.
// Errors are an *Error, or match ctx.Err or ErrUnavailable.
func (k *Keystore) Do(ctx context.Context, caller Caller, in Input) (any, error) {
	op := in.operation()
	c := &call{k: k, caller: caller, op: op}
	var out any
	var err error
	if op.changes {
		err = k.update(ctx, func(state *snapshot, d *document) error {
			c.doc = d
			out, err = c.run(state, in)
			return err
		})
	} else {
		var state *snapshot
		if state, err = k.acquire(ctx); err == nil {
			out, err = c.run(state, in)
			k.mu.RUnlock()
		}
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// run checks and performs in on the state, which is locked for reading.
func (c *call) run(state *snapshot, in Input) (any, error) {
	c.state, c.now = state, c.k.timestamp()
	if c.op.needsKey {
		var err error
		if c.key, err = state.find(c.op.key, c.op.noAlias); err != nil {
			return nil, err
		}
	}
	if err := c.authorize(); err != nil {
		return nil, err
	}
	if c.op.needsKey {
		if err := c.key.mustBe(c.op.states); err != nil {
			return nil, err
		}
	}
	out, err := in.perform(c)
	if err == nil && c.op.dryRun {
		err = refuse(codeDryRun, "The request would have succeeded, but the DryRun option is set.")
	}
	return out, err
}

// authorize decides whether the caller may.
func (c *call) authorize() error {
	if c.caller.ARN != rootARN(c.k.account) {
		return refuse(codeAccessDenied, "User: %s is not authorized to perform: kms:%s", c.caller.ARN, c.op.name)
	}
	return nil
}

// record returns the key's record in the document that is being changed.
func (c *call) record() *keyRecord {
	return c.doc.key(c.key.record.ID)
}

// do is Do for a caller within this package that knows the output's type.
func do[Output any](ctx context.Context, k *Keystore, in Input) (*Output, error) {
	out, err := k.Do(ctx, k.Root(), in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.operation().name, err)
	}
	typed, ok := out.(*Output)
	if !ok && out != nil {
		return nil, errors.New("an operation answered with another's output")
	}
	return typed, nil
}

// mustBe refuses unless the key is in one of the states.
func (k *openKey) mustBe(allowed states) error {
	switch state := k.record.State; {
	case state == kmsprovider.StateEnabled && allowed&enabled != 0, state == kmsprovider.StateDisabled && allowed&disabled != 0:
		return nil
	case state == kmsprovider.StateDisabled:
		return refuse(codeDisabled, "%s is disabled.", k.arn)
	default:
		return refuse(codeInvalidState, "%s is not in a state that allows this.", k.arn)
	}
}
