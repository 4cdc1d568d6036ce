package volume

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Settling is how far the check after a power cut is.
type Settling struct {
	Done, Total int64 // of the work; see FsckOptions.Progress
	Findings    int
}

// SettleInBackground starts Settle, if there is something to settle, and ends it
// when the volume is closed; a later mount starts anew then.
func (v *Volume) SettleInBackground() {
	if !v.mustSettle() {
		return
	}
	v.tasks.Go(func() {
		r, err := v.Settle(v.ctx)
		switch {
		case errors.Is(err, context.Canceled):
		case err != nil:
			v.log.Warn("the check after a power cut did not come to its end: mismatches are accepted until the next mount has settled them", "error", err)
		case !r.Complete:
			v.log.Warn("the check after a power cut could not look at everything: mismatches are accepted until the next mount has settled them",
				"files", r.Files, "errors", r.Errors)
		default:
			v.log.Info("the check after a power cut is done: from now on a mismatch is an error",
				"files", r.Files, "bytes", r.Bytes, "errors", r.Errors, "not_repaired", r.Remaining)
		}
	})
}

// mustSettle tells whether a power cut may have torn what nobody has checked since.
func (v *Volume) mustSettle() bool { return !v.readOnly && v.accepting() }

// Settle checks every file after a power cut, while the volume is in use, makes
// seals say what is there, and then ends the time in which mismatches are
// accepted. What is damaged is reported, and stays. It is a Fsck of that much
// only: it sets nothing aside and removes nothing.
func (v *Volume) Settle(ctx context.Context) (*FsckReport, error) {
	start := time.Now()
	c := newFsck(v, FsckOptions{Jobs: 1})
	c.live = true
	c.options.Progress = func(done, total int64) { v.settling.progress(done, total) }
	if !v.mustSettle() {
		return c.finish(), nil
	}
	v.settling.set(c)
	defer v.settling.set(nil)
	err := c.run(ctx)
	for err == nil && !v.endSettling(c) {
		err = c.runAgain(ctx)
	}
	if err == nil && v.settled.Load() {
		// Only what is durable may be called settled.
		if err = v.syncAll(); err == nil {
			err = v.hosts.settle(v.id, v.session.id)
		}
	}
	r := c.finish()
	for i := range r.Findings {
		v.log.Warn("found after a power cut", "finding", r.Findings[i].String())
	}
	r.Seconds = time.Since(start).Seconds()
	return r, err
}

// endSettling ends the time in which mismatches are accepted, if everything was
// looked at, and tells whether there is nothing left to do: what was renamed
// meanwhile may have come past.
func (v *Volume) endSettling(c *fsck) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.moved) > 0 {
		return false
	}
	if c.report.Complete {
		v.settled.Store(true)
	}
	return true
}

// runAgain looks at what was renamed since it began.
func (c *fsck) runAgain(ctx context.Context) error {
	c.mu.Lock()
	moved := c.moved
	c.moved, c.misplaced, c.nameless = nil, nil, nil
	c.mu.Unlock()
	var tops []*fsckEntry
	for _, n := range moved {
		p, ok := n.at()
		if !ok {
			continue
		}
		e, err := p.parent.fsckEntry(p.name)
		if err == nil {
			tops = append(tops, e)
		}
	}
	if err := c.walk(ctx, tops); err != nil {
		return err
	}
	if err := c.settlePlaces(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Complete = !c.blind && !c.refused
	return nil
}

// moved tells a check under way that something has another name now.
func (v *Volume) moved(n *Node) {
	if c := v.settling.get(); c != nil {
		c.mu.Lock()
		c.moved = append(c.moved, n)
		c.mu.Unlock()
	}
}

// settling is the check after a power cut that is under way.
type settling struct {
	check       atomic.Pointer[fsck]
	done, total atomic.Int64
}

func (s *settling) set(c *fsck) { s.check.Store(c) }
func (s *settling) get() *fsck  { return s.check.Load() }

func (s *settling) progress(done, total int64) {
	s.done.Store(done)
	s.total.Store(total)
}

// now is how far it is; nil if none is under way.
func (s *settling) now() *Settling {
	c := s.get()
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Settling{Done: s.done.Load(), Total: s.total.Load(), Findings: len(c.findings)}
}
