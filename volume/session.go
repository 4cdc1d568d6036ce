package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// session is a file in .kmsfs/sessions that is locked as long as a mount has the
// volume open for writing. The lock counts, not the file: a killed mount leaves
// the file, and nobody has to clean up by hand.
type session struct {
	id      crypto.ID
	backing Backing
	dir     int // descriptor of .kmsfs/sessions
	fd      int // of the file; the lock hangs on it
	info    sessionInfo
	stale   []crypto.ID
}

// sessionInfo is what stands in the file: one JSON object. Only the lock is
// relied on; the rest is for people, and for rewrap, which waits until every
// session follows the newest generation.
type sessionInfo struct {
	ID         crypto.ID `json:"id"`
	Host       string    `json:"host"`
	PID        int       `json:"pid"`
	Mountpoint string    `json:"mountpoint"`
	Since      time.Time `json:"since"`
	Generation uint64    `json:"generation"` // of volume.json that it goes by; 0 if not known
	// Shared: it lets others in that are shared, too. The lock says so.
	Shared bool `json:"shared,omitempty"`
}

func (i sessionInfo) inUse() *InUseError {
	return &InUseError{Session: i.ID, Host: i.Host, PID: i.PID, Mountpoint: i.Mountpoint, Since: i.Since}
}

const (
	sessionsDir = "sessions"
	maxSession  = 64 << 10 // bytes, more than any session file
)

// openSessions opens .kmsfs/sessions below the backing directory open as root,
// making it again if create is set: sync tools leave out empty directories.
func openSessions(k Backing, root int, create bool) (int, error) {
	meta, err := openMeta(k, root)
	if err != nil {
		return -1, err
	}
	defer k.Close(meta)
	fd, err := k.Openat(meta, sessionsDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT && create {
		if err = k.Mkdirat(meta, sessionsDir, 0o700); err == nil || err == unix.EEXIST {
			fd, err = k.Openat(meta, sessionsDir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("open %s/%s: %w", metaDir, sessionsDir, err)
	}
	return fd, nil
}

// beginSession claims the volume for writing, or is an InUseError that says who
// has it. info.ID is the new session's; session.stale are those that ended
// without saying so.
func beginSession(k Backing, root int, info sessionInfo) (_ *session, err error) {
	s := &session{id: info.ID, backing: k, fd: -1}
	if s.dir, err = openSessions(k, root, true); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	// One at a time looks and claims. Over a network the lock may hold on this
	// host alone, so the claim comes before the look: of two hosts that claim at
	// the same time, both may give up, but never both go on.
	if err := retry(func() error { return unix.Flock(s.dir, unix.LOCK_EX) }); err != nil {
		return nil, fmt.Errorf("lock %s: %w", sessionsDir, err)
	}
	defer func() { _ = unix.Flock(s.dir, unix.LOCK_UN) }()
	if s.fd, err = k.Openat(s.dir, s.id.String(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err != nil {
		return nil, fmt.Errorf("begin session %s: %w", s.id, err)
	}
	// The owner of the volume may look at the lock of root's mount, too; .kmsfs keeps strangers out.
	_ = k.Fchmodat(s.fd, "", 0o644)
	if err := lockSession(s.fd, info.Shared); err != nil {
		return nil, fmt.Errorf("lock session %s: %w", s.id, err)
	}
	live, stale, err := scanSessions(k, s.dir, s.id)
	if err != nil {
		return nil, err
	}
	for _, other := range live {
		if !info.Shared || !other.Shared {
			return nil, other.inUse()
		}
	}
	if err := s.write(info); err != nil {
		return nil, err
	}
	s.stale = stale
	return s, nil
}

// write puts info into the file, in place, since the lock is the inode's. Who
// reads in between sees half of it, and takes it for unknown.
func (s *session) write(info sessionInfo) error {
	b, err := json.Marshal(info)
	if err == nil && len(b) >= maxSession {
		err = errTooLong
	}
	if err == nil {
		_, err = pwriteFull(s.backing, s.fd, append(b, '\n'), 0)
	}
	if err == nil {
		err = s.backing.Ftruncate(s.fd, int64(len(b)+1))
	}
	if err != nil {
		return fmt.Errorf("write session %s: %w", s.id, err)
	}
	s.info = info
	return nil
}

// follow says that the mount goes by this generation of volume.json from now on.
func (s *session) follow(generation uint64) error {
	info := s.info
	info.Generation = generation
	return s.write(info)
}

// removeStale deletes the files of the sessions that ended without saying so.
// What cannot be deleted is found again the next time.
func (s *session) removeStale() {
	for _, id := range s.stale {
		_ = s.backing.Unlinkat(s.dir, id.String(), 0)
	}
	s.stale = nil
}

// end gives the volume free again.
func (s *session) end() {
	if s.fd >= 0 {
		_ = s.backing.Unlinkat(s.dir, s.id.String(), 0)
	}
	s.abandon()
}

// abandon gives up the lock and leaves the file, as a killed mount does.
func (s *session) abandon() {
	if s.fd >= 0 {
		s.backing.Close(s.fd)
	}
	s.backing.Close(s.dir)
}

// liveSessions lists the sessions that have the volume open for writing.
func liveSessions(k Backing, root int) ([]sessionInfo, error) {
	dir, err := openSessions(k, root, false)
	if errors.Is(err, unix.ENOENT) { // .kmsfs is there: ErrNotVolume is no ENOENT
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer k.Close(dir)
	live, _, err := scanSessions(k, dir, crypto.ID{})
	return live, err
}

// scanSessions sorts the sessions but own into those that live and those that
// do not. What it cannot read of a live one, it leaves empty; what no mount can
// have made is passed over.
func scanSessions(k Backing, dir int, own crypto.ID) (live []sessionInfo, stale []crypto.ID, err error) {
	entries, err := listDescriptor(k, dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list %s: %w", sessionsDir, err)
	}
	for _, e := range entries {
		id, err := crypto.ParseID(e.name)
		if err != nil || id == own {
			continue
		}
		info, locked, err := readSession(k, dir, id)
		switch {
		case err == unix.ENOENT || errors.Is(err, errNotPlain):
			// Gone meanwhile, or no regular file.
		case err != nil:
			return nil, nil, fmt.Errorf("look whether session %s is live: %w", id, err)
		case locked:
			live = append(live, info)
		default:
			stale = append(stale, id)
		}
	}
	return live, stale, nil
}

// readSession looks at a session file without disturbing who holds it.
func readSession(k Backing, dir int, id crypto.ID) (info sessionInfo, locked bool, err error) {
	fd, err := openPlain(k, dir, id.String(), unix.O_RDONLY)
	if err != nil {
		return sessionInfo{}, false, err
	}
	defer k.Close(fd)
	kind, err := sessionLocked(fd)
	if locked = kind != unix.F_UNLCK; err != nil || !locked {
		return sessionInfo{}, false, err
	}
	b := make([]byte, maxSession)
	n, err := preadFull(k, fd, b, 0)
	if err != nil {
		n = 0
	}
	info = parseSession(b[:n], id)
	info.Shared = kind == unix.F_RDLCK
	return info, true, nil
}

// parseSession reads what stands in a session's file; where that is not what a
// mount writes, nothing is known of the session but its ID.
func parseSession(b []byte, id crypto.ID) (info sessionInfo) {
	if json.Unmarshal(b, &info) != nil {
		info = sessionInfo{}
	}
	info.ID = id
	return info
}

// lockSession takes an open-file-description lock on the whole file: it is gone
// with the descriptor, however the process ends. That of a shared mount is shared.
func lockSession(fd int, shared bool) error {
	kind := int16(unix.F_WRLCK)
	if shared {
		kind = unix.F_RDLCK
	}
	return ofdLock(fd, kind, 0, 0, false)
}

// sessionLocked asks which such lock another descriptor holds: F_UNLCK if none does.
func sessionLocked(fd int) (int16, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK}
	err := retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l) })
	return l.Type, err
}
