package volume

import (
	"sync"
	"time"

	"kmsfs/crypto"
)

// reapTicket is the right to remove a sidecar: its file's last name is gone, the
// record had verified, the binding named this file, and it was never linked.
// Whatever does not earn a ticket is left to fsck, which looks for other users.
type reapTicket struct{ id crypto.ID }

// reaper removes sidecars of unlinked files, once the removal of the name is
// durable: else a power cut could bring back the file without its key.
type reaper struct {
	settle func() error // makes earlier removals durable
	remove func(crypto.ID) error
	failed func(crypto.ID, error)

	mu    sync.Mutex
	queue []crypto.ID
	timer *time.Timer
	done  bool
}

const (
	reapAfter = 10 * time.Second
	reapBatch = 1 << 16
)

func (r *reaper) add(t reapTicket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return // left to fsck
	}
	r.queue = append(r.queue, t.id)
	if r.timer == nil {
		r.timer = time.AfterFunc(reapAfter, r.flush)
	} else if len(r.queue) == reapBatch {
		r.timer.Reset(0)
	}
}

// flush removes what is queued.
func (r *reaper) flush() {
	r.mu.Lock()
	queue := r.queue
	r.queue, r.timer = nil, nil
	r.mu.Unlock()
	if len(queue) == 0 {
		return
	}
	if err := r.settle(); err != nil {
		r.failed(queue[0], err)
		return
	}
	for _, id := range queue {
		if err := r.remove(id); err != nil {
			r.failed(id, err)
		}
	}
}

// close removes what is queued and takes nothing more.
func (r *reaper) close() {
	r.mu.Lock()
	r.done = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.flush()
}
