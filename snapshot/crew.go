package snapshot

import (
	"context"
	"sync"
)

// crew does jobs, several at a time. After the first error it does no more.
type crew struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	free   chan struct{}
	jobs   sync.WaitGroup
}

func newCrew(ctx context.Context, size int) *crew {
	c := &crew{free: make(chan struct{}, size)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// do begins a job as soon as there is somebody for it.
func (c *crew) do(job func(context.Context) error) {
	c.free <- struct{}{}
	c.jobs.Go(func() {
		defer func() { <-c.free }()
		if c.ctx.Err() != nil {
			return
		}
		if err := job(c.ctx); err != nil {
			c.cancel(err)
		}
	})
}

// wait returns when all jobs so far are done, with the first error.
func (c *crew) wait() error {
	c.jobs.Wait()
	return context.Cause(c.ctx)
}
