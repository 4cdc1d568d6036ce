package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// LatencyDevice is where Linux takes wishes for short wake-ups (PM QoS): a process
// that has it open and has written a time to it, in microseconds, keeps processors
// out of sleep that takes longer to wake up from. It is root's.
const LatencyDevice = "/dev/cpu_dma_latency"

const (
	// noWish is what the device has of who opened it and wrote nothing.
	noWish = 2_000_000_000
	// latencyQuiet is how long no request may be under way before the wish is
	// taken back: longer than a program thinks between two, short enough to cost
	// little power.
	latencyQuiet = 5 * time.Millisecond
)

// lowLatency wishes for wake-ups without delay while requests flow. A request is
// a wake-up of us and one of who asked, and between them they cost more than what
// is done for most.
//
// The device is opened once, before anything is mounted, and written to: 0 when a
// request comes, noWish after a time of quiet. Closing it, or the end of the
// process, takes back whatever was wished.
type lowLatency struct {
	device *os.File
	quiet  time.Duration
	log    *slog.Logger

	busy  atomic.Int64  // requests under way
	began atomic.Uint64 // requests there were
	held  atomic.Bool
	holds atomic.Uint64 // times that it became held
	end   func()        // done, as a value that is made once

	mu    sync.Mutex // over writes to the device, and below
	timer *time.Timer
	seen  uint64 // of began, when it was last looked for quiet
	over  bool   // closed, or the device takes nothing: no more writes
}

// openLatency opens the device. Where there is none the machine has nothing to
// wish for, and it is nil.
func openLatency(path string, quiet time.Duration, log *slog.Logger) (*lowLatency, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		log.Warn("latency=low has no effect: the kernel has no such device", "device", path)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for low latency: %w", err)
	}
	l := &lowLatency{device: f, quiet: quiet, log: log}
	l.end = func() { l.busy.Add(-1) }
	l.timer = time.AfterFunc(quiet, l.look)
	return l, nil
}

// begin notes that a request has come.
func (l *lowLatency) begin() {
	l.busy.Add(1)
	l.began.Add(1)
	if !l.held.Load() {
		l.hold()
	}
}

func (l *lowLatency) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held.Load() || l.over || !l.wish(0) {
		return
	}
	l.held.Store(true)
	l.holds.Add(1)
	l.seen = l.began.Load()
	l.timer.Reset(l.quiet)
}

// look takes the wish back if nothing was asked since it was last looked, and
// nothing is under way; else it looks again later.
func (l *lowLatency) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held.Load() || l.over {
		return
	}
	// Not held first: a request that comes now sees that and waits for the lock, or
	// it is counted below.
	l.held.Store(false)
	if now := l.began.Load(); now != l.seen || l.busy.Load() != 0 {
		l.seen = now
		l.held.Store(true)
		l.timer.Reset(l.quiet)
		return
	}
	l.wish(noWish)
}

// wish writes to the device. The caller holds mu.
func (l *lowLatency) wish(microseconds int32) bool {
	_, err := l.device.Write(binary.NativeEndian.AppendUint32(nil, uint32(microseconds)))
	if err != nil {
		l.log.Warn("latency=low has no effect any more", "error", err)
		l.over = true
	}
	return err == nil
}

// close gives the device back, and with it what was wished.
func (l *lowLatency) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.held.Store(false)
	l.timer.Stop()
	if err := l.device.Close(); err != nil {
		l.log.Warn("close the device for low latency", "error", err)
	}
}

// Latency is how a mount with LowLatency fares.
type Latency struct {
	Held  bool   `json:"held"`  // short wake-ups are wished for now
	Holds uint64 `json:"holds"` // how often that began
}

// Latency is nil without LowLatency, or where the kernel has no device for it.
func (m *Mount) Latency() *Latency {
	if m.latency == nil {
		return nil
	}
	return &Latency{Held: m.latency.held.Load(), Holds: m.latency.holds.Load()}
}

// asked counts a request that somebody waits for. What it returns is to be called
// when it is answered.
func (m *Mount) asked(o op) (answered func()) {
	m.counts.add(o)
	if m.latency == nil {
		return nothing
	}
	m.latency.begin()
	return m.latency.end
}

func nothing() {}
