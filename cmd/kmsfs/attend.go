package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/control"
	kmsfs "kmsfs/fs"
	"kmsfs/kmsprovider"
	"kmsfs/volume"
)

// controlRequest is what a mount is asked over its control socket.
type controlRequest struct {
	Verb    string  `json:"verb"`              // status, lock, unlock, profile or copy
	Profile string  `json:"profile,omitempty"` // its kind
	Seconds float64 `json:"seconds,omitempty"` // that it may take
}

// passphraseMessage is what it is answered when it asks for a passphrase.
type passphraseMessage struct {
	Passphrase []byte `json:"passphrase"`
}

// controlReply is what it answers.
type controlReply struct {
	Status   *mountStatus `json:"status,omitempty"`
	Failure  *failure     `json:"failure,omitempty"`
	Keystore string       `json:"keystore,omitempty"` // whose passphrase it wants before it goes on
	Profile  []byte       `json:"profile,omitempty"`  // a part of it; the next one follows
}

// attendant answers for a mount over its control socket.
type attendant struct {
	request    *mountRequest
	volume     *volume.Volume
	mount      *kmsfs.Mount
	keys       *kmsprovider.Registry
	passphrase *changingSource // of keys
	meter      *kmsprovider.Meter
	since      time.Time
	device     string
	log        *slog.Logger
	server     *control.Server // nil if there is none
	changing   sync.Mutex      // by who locks or unlocks; others do not wait
	profiling  chan struct{}   // holds one of who has a profile made; others wait for profilePatience
}

// attend begins to answer. A mount can do without: nobody can ask it then.
func (t *attendant) attend() {
	err := t.listen()
	if err != nil {
		t.log.Warn("nobody can ask this mount for its status, or lock it", "error", err)
	}
}

func (t *attendant) listen() error {
	m, ok, err := findMount(t.request.Mountpoint)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%s is not mounted", t.request.Mountpoint)
	}
	t.device = m.device
	var st unix.Stat_t
	if err := unix.Stat(t.request.Backing, &st); err != nil {
		return fmt.Errorf("stat %s: %w", t.request.Backing, err)
	}
	name := control.Name(t.volume.ID().String(), st.Dev, st.Ino)
	for _, dir := range t.request.ControlDirs {
		if t.server, err = control.Listen(dir, name, t.answer); err == nil {
			return nil
		}
	}
	return err
}

// close ends it, before the volume is closed.
func (t *attendant) close() {
	if t.server != nil {
		_ = t.server.Close()
	}
}

// answer answers the one request of a connection.
func (t *attendant) answer(ctx context.Context, c *control.Conn) {
	var r controlRequest
	if err := c.Receive(&r); err != nil {
		t.log.Debug("request over the control socket", "error", err)
		return
	}
	reply := controlReply{}
	var err error
	switch r.Verb {
	case "status":
		reply.Status = t.status()
	case "lock":
		c.SetDeadline(time.Time{})
		err = t.lockUp()
	case "unlock":
		c.SetDeadline(time.Now().Add(lockTimeout))
		err = t.unlockBy(ctx, c)
	case "profile":
		err = t.profileFor(ctx, c, r)
	case "copy":
		if err = t.copyFor(ctx, c); err == nil {
			return
		}
	default:
		err = usagef("unknown request %q", r.Verb)
	}
	if err != nil {
		reply = controlReply{Failure: failureOf(err)}
	}
	if err := c.Send(reply); err != nil {
		t.log.Debug("answer over the control socket", "error", err)
	}
}

// openKeys opens the provider that is going to be asked first, as a mount does.
func (t *attendant) openKeys(ctx context.Context) error {
	info, err := volume.ReadInfo(t.request.Backing)
	if err != nil {
		return err
	}
	return openFirst(ctx, info.Keys, t.keys)
}

// status is how the mount is.
func (t *attendant) status() *mountStatus {
	s := &mountStatus{
		Mountpoint: t.request.Mountpoint, Backing: t.request.Backing, VolumeID: t.volume.ID().String(),
		Device: t.device, PID: os.Getpid(), UID: os.Geteuid(), ReadOnly: t.volume.ReadOnly(), Since: t.since,
		Requests: t.mount.Counts().Snapshot(), KMS: t.meter.Usage(),
	}
	s.BytesRead, s.BytesWritten = t.mount.Counts().Bytes()
	s.LowLatency = t.mount.Latency()
	v := t.volume.Stats()
	s.KeyTTLSeconds = t.request.KeyTTL.Seconds()
	s.Generation, s.CachedKeys, s.PooledKeys = v.Generation, v.CachedKeys, v.PooledKeys
	s.Unsettled = v.Unsettled
	if c := v.Settling; c != nil {
		s.Check = &checkProgress{Percent: int(100 * c.Done / max(c.Total, 1)), Findings: c.Findings}
	}
	s.State, s.Reason = stateOf(v.Closed)
	s.EstimatedCostUSD = estimateCost(s.KMS)
	return s
}
