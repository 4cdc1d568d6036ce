package volume

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// session is a file in .kmsfs/sessions that is locked as long as a mount has the
// volume open for writing. The lock counts, not the file: a killed mount leaves
// the file, and nobody has to clean up by hand.
type session struct {
	id  crypto.ID
	dir int // descriptor of .kmsfs/sessions
	fd  int
}

// sessionFile is what stands in it, for messages.
type sessionFile struct {
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
}

const maxSession = 16 << 10

// openSessions opens .kmsfs/sessions below the backing directory.
func openSessions(k Backing, root int) (int, error) {
	meta, err := k.Openat(root, metaDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, fmt.Errorf("open sessions: %w", err)
	}
	defer k.Close(meta)
	fd, err := k.Openat(meta, "sessions", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		if err = k.Mkdirat(meta, "sessions", 0o700); err == nil {
			fd, err = k.Openat(meta, "sessions", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("open sessions: %w", err)
	}
	return fd, nil
}

// beginSession claims the volume for writing, or says who has it. It returns
// the sessions that ended without saying so.
func beginSession(k Backing, root int, id crypto.ID, info sessionFile) (_ *session, stale []crypto.ID, err error) {
	dir, err := openSessions(k, root)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			k.Close(dir)
		}
	}()
	// One at a time looks and claims.
	if err := retry(func() error { return unix.Flock(dir, unix.LOCK_EX) }); err != nil {
		return nil, nil, fmt.Errorf("lock sessions: %w", err)
	}
	defer func() { _ = unix.Flock(dir, unix.LOCK_UN) }()
	live, stale, err := scanSessions(k, dir)
	if err != nil {
		return nil, nil, err
	}
	if len(live) > 0 {
		s := live[0]
		return nil, nil, &InUseError{Host: s.Host, PID: s.PID, Mountpoint: s.Mountpoint, Since: s.Since}
	}
	s := &session{id: id, dir: dir}
	if s.fd, err = k.Openat(dir, id.String(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err != nil {
		return nil, nil, fmt.Errorf("begin session: %w", err)
	}
	if err := lockFile(s.fd); err != nil {
		return nil, nil, fmt.Errorf("lock session: %w", err)
	}
	b, err := json.Marshal(info)
	if err == nil {
		_, err = pwriteFull(k, s.fd, append(b, '\n'), 0)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write session: %w", err)
	}
	return s, stale, nil
}

// end gives the volume free again.
func (s *session) end(k Backing) {
	_ = k.Unlinkat(s.dir, s.id.String(), 0)
	k.Close(s.fd)
	k.Close(s.dir)
}

// remove deletes the file of a session that is over.
func (s *session) remove(k Backing, id crypto.ID) { _ = k.Unlinkat(s.dir, id.String(), 0) }

// scanSessions sorts the sessions into those that live and those that do not.
func scanSessions(k Backing, dir int) (live []sessionFile, stale []crypto.ID, err error) {
	entries, err := listDescriptor(k, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list sessions: %w", err)
	}
	for _, e := range entries {
		id, err := crypto.ParseID(e.name)
		if err != nil {
			continue
		}
		fd, err := k.Openat(dir, e.name, unix.O_RDWR|unix.O_NONBLOCK, 0)
		if err == unix.EROFS || err == unix.EACCES {
			fd, err = k.Openat(dir, e.name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		}
		if err != nil {
			continue // gone meanwhile, or nothing that could be locked
		}
		locked, err := isLocked(fd)
		k.Close(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("test session %s: %w", e.name, err)
		}
		if !locked {
			stale = append(stale, id)
			continue
		}
		var s sessionFile
		if b, err := readSmall(k, dir, e.name, maxSession); err == nil {
			_ = json.Unmarshal(b, &s) // one that cannot be read is in use all the same
		}
		live = append(live, s)
	}
	return live, stale, nil
}

// liveSessions lists the sessions that have the volume open for writing.
func liveSessions(k Backing, root int) ([]sessionFile, error) {
	meta, err := k.Openat(root, metaDir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	defer k.Close(meta)
	dir, err := k.Openat(meta, "sessions", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT || err == unix.EACCES {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open sessions: %w", err)
	}
	defer k.Close(dir)
	live, _, err := scanSessions(k, dir)
	return live, err
}

// lockFile takes an open-file-description lock on the whole file: it is gone
// with the descriptor, however the process ends.
func lockFile(fd int) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// isLocked asks whether somebody else holds such a lock.
func isLocked(fd int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l)
	return l.Type != unix.F_UNLCK, err
}

// beginWriting claims the volume, finishes what the last session left, and
// notes in host state that it is open.
func (v *Volume) beginWriting(o Options) error {
	id, err := crypto.NewID(v.random)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	info := sessionFile{Host: host, PID: os.Getpid(), Mountpoint: o.Mountpoint, Since: o.now().UTC().Truncate(time.Second)}
	s, stale, err := beginSession(v.backing, v.rootDesc.fd, id, info)
	if err != nil {
		return err
	}
	v.session = s
	boot, err := bootID()
	if err != nil {
		return err
	}
	if err := v.recover(boot); err != nil {
		return err
	}
	v.host.Boot, v.host.Session, v.host.Open = boot, id, true
	if err := v.hosts.save(v.host); err != nil {
		return err
	}
	// From here on no slots of before may be replayed.
	for _, old := range stale {
		s.remove(v.backing, old)
	}
	return v.clearRedo()
}

// recover deals with how the last session on this host ended.
func (v *Volume) recover(boot string) error {
	switch {
	case !v.host.Open:
		return nil
	case v.host.Boot != boot:
		v.relaxed = true
		v.log.Warn("the host stopped while the volume was mounted: what does not match its seal is reported and accepted until the next clean unmount")
		return nil
	}
	n, err := v.replay(v.host.Session)
	if err != nil {
		return err
	}
	v.log.Info("the last mount was killed; the volume is consistent again", "changes_finished", n)
	return nil
}

// clearRedo removes the slots of earlier sessions.
func (v *Volume) clearRedo() error {
	entries, err := v.listBacking(v.redoDir)
	if err != nil {
		return fmt.Errorf("list redo slots: %w", err)
	}
	for _, e := range entries {
		if err := v.backing.Unlinkat(v.redoDir, e.name, 0); err != nil && err != unix.ENOENT {
			return fmt.Errorf("remove old redo slots: %w", err)
		}
	}
	return nil
}

// endWriting gives the volume free and notes that it ended cleanly.
func (v *Volume) endWriting() error {
	if v.redo != nil {
		_ = v.backing.Unlinkat(v.redoDir, v.session.id.String(), 0)
	}
	var err error
	if v.host.Session == v.session.id {
		v.host.Open = false
		err = v.hosts.save(v.host)
	}
	v.session.end(v.backing)
	return err
}

// checkNoWriter refuses to read a volume that a mount is writing to: records
// and blocks would be seen half-changed.
func (v *Volume) checkNoWriter() error {
	live, err := liveSessions(v.backing, v.rootDesc.fd)
	if err != nil {
		return err
	}
	if len(live) > 0 {
		s := live[0]
		return &InUseError{Host: s.Host, PID: s.PID, Mountpoint: s.Mountpoint, Since: s.Since}
	}
	if v.host.Open {
		if boot, err := bootID(); err == nil && v.host.Boot != boot {
			v.relaxed = true
		}
	}
	return nil
}
