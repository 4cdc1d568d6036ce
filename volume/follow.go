package volume

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// follower keeps a mount going by the newest volume.json, which rewrap replaces
// under it, and says in the session file how far it is. What does not vouch for
// itself is not followed: the old configuration stays in force.
type follower struct {
	mu      sync.Mutex
	seen    configStamp    // of the file that was followed or refused last
	refused string         // why, so that it is logged once; "" if it was not
	using   map[uint64]int // keys being issued, by the generation that they go by
	told    uint64         // generation that the session file says
	closed  bool
}

// configStamp tells one volume.json from another without reading it: it is
// replaced by a rename, never written in place.
type configStamp struct {
	ino, size    uint64
	mtime, ctime unix.StatxTimestamp
}

func (v *Volume) configStamp() (configStamp, error) {
	var st unix.Statx_t
	if err := v.backing.Statx(v.meta, configName, &st); err != nil {
		return configStamp{}, fmt.Errorf("stat %s: %w", configName, err)
	}
	return configStamp{st.Ino, st.Size, st.Mtime, st.Ctime}, nil
}

// followEvery is how often a mount looks for a new volume.json when it issues no
// keys: rewrap waits for it, and it is one stat.
const followEvery = 2 * time.Second

// followConfig looks whether there is a new volume.json and goes by it from then
// on. That is one stat where there is none.
func (v *Volume) followConfig() {
	v.follow.mu.Lock()
	defer v.follow.mu.Unlock()
	v.followLocked()
}

func (v *Volume) followLocked() {
	f := &v.follow
	if f.closed {
		return
	}
	stamp, err := v.configStamp()
	if err == nil && stamp != f.seen {
		err = v.adoptConfig(stamp)
	} else if err == nil {
		v.tellSession()
		return
	}
	switch {
	case err == nil:
		f.refused = ""
		v.tellSession()
	case err.Error() != f.refused:
		f.refused = err.Error()
		v.log.Error("new configuration refused, the old one stays in force", "generation", v.conf().Generation, "error", err)
	}
}

// adoptConfig reads the volume.json of that stamp and goes by it, if whoever
// holds the volume key wrote it for this volume, later than the one in force.
func (v *Volume) adoptConfig(stamp configStamp) error {
	f, now := &v.follow, v.conf()
	next, err := readConfigIn(v.backing, v.meta)
	if err != nil {
		return err
	}
	f.seen = stamp
	if bytes.Equal(next.bytes(), now.bytes()) {
		return nil
	}
	if err := next.authenticate(v.vk); err != nil {
		return err
	}
	switch {
	case next.ID != now.ID || next.KeyMode != now.KeyMode:
		return fmt.Errorf("%s is of another volume or key mode: %w", configName, ErrIntegrity)
	case next.Generation <= now.Generation:
		return fmt.Errorf("%s is of generation %d, and %d was there before: somebody put an older one back: %w", configName, next.Generation, now.Generation, ErrIntegrity)
	}
	v.config.Store(next)
	v.log.Info("following a new configuration", "generation", next.Generation)
	return nil
}

// beginIssue returns the configuration that a new data key is to be wrapped by,
// the newest. The session does not say that the mount follows a later one before
// endIssue: what rewrap looks for afterwards, it then finds.
func (v *Volume) beginIssue() *Config {
	v.follow.mu.Lock()
	defer v.follow.mu.Unlock()
	v.followLocked()
	c := v.conf()
	if v.follow.using == nil {
		v.follow.using = make(map[uint64]int)
	}
	v.follow.using[c.Generation]++
	return c
}

// endIssue says that the sidecar of the new data key is written, or will not be.
func (v *Volume) endIssue(c *Config) {
	v.follow.mu.Lock()
	defer v.follow.mu.Unlock()
	if v.follow.using[c.Generation]--; v.follow.using[c.Generation] == 0 {
		delete(v.follow.using, c.Generation)
		v.tellSession()
	}
}

// tellSession says in the session file which generation the mount goes by, once
// no key is being issued by an older one. The caller holds follow.mu.
func (v *Volume) tellSession() {
	f, now := &v.follow, v.conf().Generation
	if v.session == nil || f.closed || f.told >= now {
		return
	}
	for generation := range f.using {
		if generation < now {
			return
		}
	}
	if err := v.session.follow(now); err != nil {
		v.log.Warn("cannot say which configuration the mount follows; rewrap will wait for it", "error", err)
		return // tried again at the next look
	}
	f.told = now
}

// watchConfig follows until the volume is closed, for a mount that issues no keys.
func (v *Volume) watchConfig() {
	t := time.NewTicker(followEvery)
	defer t.Stop()
	for {
		select {
		case <-v.ctx.Done():
			return
		case <-t.C:
			if v.custody.gate.enter(ordinary) == nil { // to authenticate it takes the key
				v.followConfig()
				if v.shared != nil {
					v.shared.sweep()
				}
				v.custody.gate.leave()
			}
		}
	}
}

// stopFollowing is called before the session ends and the key is wiped.
func (v *Volume) stopFollowing() {
	v.follow.mu.Lock()
	v.follow.closed = true
	v.follow.mu.Unlock()
}
