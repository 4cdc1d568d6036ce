package volume

import (
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// The session of a shared mount has a shared lock on its file, where that of another
// has an exclusive one. So who looks at the lock learns both that the session lives
// and whether it lets others in.

// beginShared is what beginWriting does for a shared mount, once its session is claimed.
func (v *Volume) beginShared(boot string) error {
	s := v.shared
	v.redo = newRedoFile(v.backing, -1, v.session.id, v.vk.Derive(crypto.LabelRedo))
	var err error
	if s.tree, err = v.backing.Openat(v.redoDir, sharedTree, unix.O_RDWR|unix.O_CREAT, 0o600); err != nil {
		return fmt.Errorf("open %s/redo/%s: %w", metaDir, sharedTree, err)
	}
	if err := v.lockNames(); err != nil {
		return err
	}
	defer v.unlockNames()
	// Others that begin now wait for the lock.
	others, err := liveSessions(v.backing, v.rootDesc.fd)
	if err != nil {
		return err
	}
	if len(others) > 1 {
		if v.host.lastEnd(boot) != endClean {
			v.log.Info("what was interrupted in a file is finished by who uses it next, since others have the volume open", "sessions", len(others))
		}
	} else if err := v.recoverShared(boot); err != nil {
		return err
	}
	if v.host.mayBeTorn(boot) {
		v.log.Warn("the host stopped while the volume was mounted: what does not match its seal is refused by shared mounts, until fsck --repair or a mount that is not shared has settled it")
	}
	v.host, err = v.hosts.begin(v.id, v.session.id, boot)
	return err
}

// recoverShared finishes what the last mount of this host left that was not shared.
// This one is the only one. It has the lock on names.
func (v *Volume) recoverShared(boot string) error {
	open, err := v.recover(boot)
	v.relaxed = false // the others would not know
	if err != nil {
		return err
	}
	for _, in := range open {
		if err := v.settleIntent(in); err != nil {
			return fmt.Errorf("settle an interrupted operation on names: %w", err)
		}
	}
	v.session.removeStale()
	return v.clearRedo()
}

// endShared ends the session, and removes the file that the lock on names hangs on if
// nobody else has it.
func (v *Volume) endShared() error {
	var heir *sessionInfo
	if err := v.lockNames(); err == nil {
		live, err := liveSessions(v.backing, v.rootDesc.fd)
		for i, s := range live {
			if s.ID != v.session.id && s.Host == v.session.info.Host {
				heir = &live[i]
			}
		}
		if err == nil && len(live) == 1 {
			_ = v.backing.Unlinkat(v.redoDir, sharedTree, 0)
		}
		v.unlockNames()
	}
	// What a power cut may have torn is for a mount that is not shared to settle.
	err := v.hosts.handOver(v.id, v.session.id, heir)
	v.session.end()
	return err
}

// handOver notes that a shared session ended. While another one of this host goes on,
// the volume stays open.
func (s *hostStore) handOver(id, session crypto.ID, heir *sessionInfo) error {
	if heir == nil {
		return s.cancel(id, session)
	}
	_, err := s.update(id, func(h *HostState) {
		if h.Session == session {
			h.Session = heir.ID
		}
	})
	return err
}

// close closes what the volume holds open for being shared.
func (s *sharing) close() {
	if s == nil {
		return
	}
	s.locks.close()
	s.names.Lock()
	defer s.names.Unlock()
	if s.tree >= 0 {
		s.vol.backing.Close(s.tree)
		s.tree = -1
	}
}
