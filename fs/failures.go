package fs

import (
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// failureLog writes each failure once: the same one again only after a while,
// however often a program tries.
type failureLog struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

const (
	failureAgain = time.Minute
	failuresKept = 4096
)

func (f *failureLog) log(log *slog.Logger, op string, errno syscall.Errno, err error) {
	text := err.Error()
	now := time.Now()
	f.mu.Lock()
	last, known := f.seen[text]
	if known && now.Sub(last) < failureAgain {
		f.mu.Unlock()
		return
	}
	if f.seen == nil || len(f.seen) >= failuresKept {
		f.seen = make(map[string]time.Time)
	}
	f.seen[text] = now
	f.mu.Unlock()
	log.Error(op+" failed", "errno", errno.Error(), "error", text)
}
