package envelope

import (
	"context"
	"runtime"
	"sync"
)

const (
	batchSize      = 256 << 10 // bytes of frames that are handled together, unless one frame is longer
	pipelineBudget = 32 << 20  // bytes of batches under way, unless two are more
)

// batch is a run of frames on its way through a pipeline. Whoever was handed it by a channel owns it.
type batch struct {
	buf    []byte // the memory: bytes as they were read, then transformed in place
	wire   []byte // in buf: the frames as they are in the message
	plain  []byte // in buf: what was decrypted and verified
	first  uint32 // sequence number of its first frame
	frames int
	final  bool  // holds the last frame of the message, and only that
	err    error // what ended it; it holds good for what comes after wire or plain

	nonce [nonceSize]byte // scratch
	aad   []byte          // scratch
	done  chan struct{}
}

// pipeline moves batches from produce, one after the other, through work, several at a time, to consume in their order.
// Memory is batches times what a batch holds.
type pipeline struct {
	workers int
	batches int

	produce func(*batch) (more bool) // sets err to say what went wrong
	before  func(*batch)             // if any: in order, before work
	work    func(*batch) error       // an error ends the run when its batch's turn comes
	after   func(*batch)             // if any: in order, after work
	consume func(*batch) error       // in order, on the caller's goroutine; b.err is looked at after it
	finish  func()                   // when nothing of it runs any more
}

// sizePipeline says how many workers and batches there are for a batch of so many bytes. workers 0: one per CPU.
func sizePipeline(workers, bytes int) (int, int) {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return workers, max(2, min(2*workers+2, pipelineBudget/max(bytes, 1)))
}

// run returns the first error in the order of the batches, or ctx's. In the latter case produce may still be waiting
// for its source; else all is over when run returns.
func (p pipeline) run(ctx context.Context) error {
	all := make([]*batch, p.batches)
	free := make(chan *batch, p.batches)
	for i := range all {
		all[i] = &batch{done: make(chan struct{}, 1)}
		free <- all[i]
	}
	// No channel but free ever blocks its sender: each has room for all batches.
	queue := func() chan *batch { return make(chan *batch, p.batches) }
	stop := make(chan struct{})
	var running sync.WaitGroup

	read, ordered := queue(), queue()
	running.Go(func() {
		defer close(read)
		defer close(ordered)
		for more := true; more; {
			select {
			case <-stop:
				return
			case b := <-free:
				more = p.produce(b)
				ordered <- b
				read <- b
			}
		}
	})
	toWork := stage(&running, read, queue, p.before)
	for range p.workers {
		running.Go(func() {
			for b := range toWork {
				if err := p.work(b); err != nil {
					b.err = err
				}
				b.done <- struct{}{}
			}
		})
	}
	worked := queue()
	running.Go(func() {
		defer close(worked)
		for b := range ordered {
			<-b.done
			worked <- b
		}
	})
	err := p.drain(ctx, stage(&running, worked, queue, p.after), free)

	close(stop)
	end := func() {
		running.Wait()
		for _, b := range all {
			clear(b.buf[:cap(b.buf)])
		}
		p.finish()
	}
	if ctx.Err() != nil {
		go end() // produce may be waiting for a source that nobody ends
	} else {
		end()
	}
	return err
}

// stage puts f between two queues; a nil f is none.
func stage(running *sync.WaitGroup, in chan *batch, queue func() chan *batch, f func(*batch)) chan *batch {
	if f == nil {
		return in
	}
	out := queue()
	running.Go(func() {
		defer close(out)
		for b := range in {
			f(b)
			out <- b
		}
	})
	return out
}

func (p pipeline) drain(ctx context.Context, in <-chan *batch, free chan<- *batch) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b, ok := <-in:
			if !ok {
				return nil
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := p.consume(b); err != nil {
				return err
			}
			if b.err != nil {
				return b.err
			}
			b.wire, b.plain, b.frames, b.final = nil, nil, 0, false
			free <- b
		}
	}
}
