package volume

import (
	"sync/atomic"
)

// gate is what every call that needs keys passes. It is closed in two steps:
// first only what brings back acknowledged data is let in, then nothing, and
// once the last call has left the keys can be wiped. It is no lock: nobody waits
// to get in, and calls may wait for the KMS inside.
type gate struct {
	state  atomic.Int32
	calls  atomic.Int64          // inside
	empty  chan struct{}         // wakes shut
	reason atomic.Pointer[error] // what those get who are not let in
}

const (
	gateOpen     = iota
	gateDraining // only what writes back
	gateShut
)

// callKind says how a call stands to a gate that closes.
type callKind int

const (
	ordinary    callKind = iota
	writingBack          // a write: it may bring pages that the kernel kept
)

// enter lets a call in, which then leaves, or says why not.
func (g *gate) enter(kind callKind) error {
	g.calls.Add(1)
	if s := g.state.Load(); s == gateOpen || s == gateDraining && kind == writingBack {
		return nil
	}
	g.leave()
	return *g.reason.Load()
}

func (g *gate) leave() {
	if g.calls.Add(-1) == 0 && g.state.Load() != gateOpen {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

// drain begins to close the gate.
func (g *gate) drain(reason error) {
	g.reason.Store(&reason)
	g.state.Store(gateDraining)
}

// shut closes the gate and returns when nobody is inside.
func (g *gate) shut() {
	g.state.Store(gateShut)
	for g.calls.Load() != 0 {
		<-g.empty
	}
}

// open opens the gate again.
func (g *gate) open() { g.state.Store(gateOpen) }
