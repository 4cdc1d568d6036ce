package main

import (
	"context"
	"fmt"
	"time"

	"kmsfs/control"
)

// copyRequest is one of many messages of who copies the backing directory of a mount,
// over one connection; each is answered.
type copyRequest struct {
	What       string `json:"what"` // one of the constants below
	Inode      uint64 `json:"inode,omitempty"`
	Generation uint64 `json:"generation,omitempty"` // of the inode, see volume.InodeOf
}

const (
	copyFlush   = "flush"   // bring back what the kernel keeps
	copySettle  = "settle"  // wait for the changes of a file that are under way
	copyHold    = "hold"    // keep a file as it is, until release
	copyNames   = "names"   // keep all names as they are, until release
	copyRelease = "release" // which fails if it was released before, because it took too long
)

const (
	// heldFor is how long who copies may keep a file or names as they are.
	heldFor = time.Minute
	// holdWithin is how long he waits for operations that are under way.
	holdWithin = 30 * time.Second
)

// copyFor serves who copies the backing directory, until he goes away.
func (t *attendant) copyFor(ctx context.Context, c *control.Conn) error {
	c.SetDeadline(time.Time{})
	if err := c.Send(controlReply{}); err != nil {
		return err
	}
	var h holding
	defer h.end()
	for {
		var r copyRequest
		if err := c.Receive(&r); err != nil {
			return nil // gone
		}
		reply := controlReply{}
		if err := t.copyStep(ctx, &h, r); err != nil {
			reply.Failure = failureOf(err)
		}
		if err := c.Send(reply); err != nil {
			return nil
		}
	}
}

func (t *attendant) copyStep(ctx context.Context, h *holding, r copyRequest) error {
	switch r.What {
	case copyFlush:
		t.volume.WriteBack()
		return nil
	case copySettle:
		return t.volume.SettleFile(r.Inode, r.Generation)
	case copyHold:
		return h.begin(func() (func(), error) { return t.volume.HoldFile(r.Inode, r.Generation) })
	case copyNames:
		return h.begin(func() (func(), error) {
			ctx, cancel := context.WithTimeout(ctx, holdWithin)
			defer cancel()
			return t.volume.HoldNames(ctx)
		})
	case copyRelease:
		return h.end()
	}
	return usagef("unknown request %q", r.What)
}

// holding is what is held for a connection: one thing at a time, and not for ever.
type holding struct {
	release func() // gives it up once, and tells whether that was in time
	timer   *time.Timer
}

func (h *holding) begin(hold func() (func(), error)) error {
	_ = h.end()
	release, err := hold()
	if err != nil {
		return err
	}
	h.release = release
	h.timer = time.AfterFunc(heldFor, release)
	return nil
}

func (h *holding) end() error {
	if h.release == nil {
		return nil
	}
	release := h.release
	h.release = nil
	if !h.timer.Stop() {
		return fmt.Errorf("it was held for %v, and could not be any longer", heldFor)
	}
	release()
	return nil
}

// mountCopier asks a mount that goes on while its backing directory is copied. It is
// a snapshot.Live.
type mountCopier struct {
	socket string
	uid    int
	path   string // mount point
	idle   chan *control.Conn
}

func newMountCopier(socket string, s *mountStatus, jobs int) *mountCopier {
	return &mountCopier{socket: socket, uid: s.UID, path: s.Mountpoint, idle: make(chan *control.Conn, jobs)}
}

// close ends the connections that nobody uses.
func (m *mountCopier) close() {
	for {
		select {
		case c := <-m.idle:
			c.Close()
		default:
			return
		}
	}
}

// connection takes one that is idle, or makes one.
func (m *mountCopier) connection(ctx context.Context) (*control.Conn, error) {
	select {
	case c := <-m.idle:
		return c, nil
	default:
	}
	c, err := control.Dial(ctx, m.socket, m.uid)
	if err != nil {
		return nil, fmt.Errorf("the mount at %s has ended: %w", m.path, err)
	}
	if _, err := converseOver(c, controlRequest{Verb: "copy"}); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (m *mountCopier) giveBack(c *control.Conn) {
	select {
	case m.idle <- c:
	default:
		c.Close()
	}
}

// ask has the mount do something, and returns the connection if it is to be used
// again.
func (m *mountCopier) ask(ctx context.Context, r copyRequest) (*control.Conn, error) {
	c, err := m.connection(ctx)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := converseOver(c, r); err != nil {
		c.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return c, nil
}

func (m *mountCopier) do(ctx context.Context, r copyRequest) error {
	c, err := m.ask(ctx, r)
	if err == nil {
		m.giveBack(c)
	}
	return err
}

// Flush has the kernel write back: by itself where this user may enter the mount,
// which leaves its cache as it is.
func (m *mountCopier) Flush(ctx context.Context) error {
	if done, err := syncMount(m.path); done || err != nil {
		return err
	}
	return m.do(ctx, copyRequest{What: copyFlush})
}

func (m *mountCopier) Settle(ctx context.Context, ino, generation uint64) error {
	return m.do(ctx, copyRequest{What: copySettle, Inode: ino, Generation: generation})
}

func (m *mountCopier) Hold(ctx context.Context, ino, generation uint64) (func(), error) {
	release, err := m.hold(ctx, copyRequest{What: copyHold, Inode: ino, Generation: generation})
	return func() { _ = release() }, err
}

func (m *mountCopier) HoldNames(ctx context.Context) (func() error, error) {
	return m.hold(ctx, copyRequest{What: copyNames})
}

func (m *mountCopier) hold(ctx context.Context, r copyRequest) (func() error, error) {
	c, err := m.ask(ctx, r)
	if err != nil {
		return func() error { return nil }, err
	}
	return func() error {
		_, err := converseOver(c, copyRequest{What: copyRelease})
		if err != nil {
			c.Close()
			return err
		}
		m.giveBack(c)
		return nil
	}, nil
}
