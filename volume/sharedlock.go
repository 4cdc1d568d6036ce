package volume

import (
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// Locks of a backing file, all of them open-file-description locks of fcntl(2):
// they end with the descriptor, however the process ends, and only with that.
// POSIX locks would go whenever this process closes any descriptor of the file.
//
//	0 … ownLocks-1   programs' own locks, at the offsets that they name
//	ownLocks         content: shared to read record and blocks, exclusive to change them
//	ownLocks+1       use: shared by each mount that has the file open; who gets it
//	                 exclusively is the last
//	ownLocks+2       flock(2) of programs
//
// No file has content at these offsets: the largest ends 9 · 10¹⁶ bytes before.
const (
	ownLocks    = math.MaxInt64 - 1<<20 + 1
	contentLock = ownLocks
	useLock     = ownLocks + 1
	flockLock   = ownLocks + 2
)

// ofdLock changes the lock that fd has on [start, start+n); unix.EAGAIN where another
// has one in the way, unless wait is set. kind is F_RDLCK, F_WRLCK or F_UNLCK.
func ofdLock(fd int, kind int16, start, n int64, wait bool) error {
	cmd := unix.F_OFD_SETLK
	if wait {
		cmd = unix.F_OFD_SETLKW
	}
	err := retry(func() error {
		return unix.FcntlFlock(uintptr(fd), cmd, &unix.Flock_t{Type: kind, Start: start, Len: n})
	})
	if err == unix.EACCES {
		err = unix.EAGAIN
	}
	return err
}

// sharedFile is what goes with the state of a file on a shared mount: this mount's
// use of the content lock, which belongs to the descriptor and not to a call. Locks:
// gate is taken before file.write and file.content, and held with the lock; mu is
// a leaf.
type sharedFile struct {
	gate sync.RWMutex // readers of this mount, or one writer

	mu      sync.Mutex
	readers int
	since   time.Time // that readers have the lock
	changed bool      // by the writer that has it
}

// longRead is how long readers of this mount join each other before they let others
// have the lock.
const longRead = 10 * time.Millisecond

var errInterrupted = errors.New("a change of it was interrupted")

func (v *Volume) newSharedFile() *sharedFile {
	if v.shared == nil {
		return nil
	}
	return new(sharedFile)
}

// beginWrite makes changes one after the other: of this mount, and of all where
// several share the volume; then f.rec is what the file says. endWrite follows.
func (f *file) beginWrite() error {
	if f.shared == nil {
		f.write.Lock()
		return nil
	}
	return f.beginSharedWrite()
}

func (f *file) endWrite() {
	if f.shared == nil {
		f.write.Unlock()
		return
	}
	s := f.shared
	if s.changed && f.node.vol.shared.remote {
		var st unix.Statx_t
		_ = f.node.vol.backing.Statx(f.desc.fd, "", &st) // so that the store has it
	}
	s.changed = false
	f.write.Unlock()
	_ = ofdLock(f.desc.fd, unix.F_UNLCK, contentLock, 1, false)
	s.gate.Unlock()
}

func (f *file) beginSharedWrite() error {
	f.shared.gate.Lock()
	err := ofdLock(f.desc.fd, unix.F_WRLCK, contentLock, 1, true)
	if err == nil {
		f.write.Lock()
		if err = f.revalidate(); err == errInterrupted {
			err = f.finishInterrupted()
		}
		if err != nil {
			f.endWrite()
		}
		return err
	}
	f.shared.gate.Unlock()
	return err
}

// beginRead keeps all writers away from a file of a shared mount, and makes f.rec
// what it says; elsewhere it does nothing. endRead follows. No lock of the file is
// held before.
func (f *file) beginRead() error {
	if f.shared == nil {
		return nil
	}
	for {
		err := f.joinReaders()
		if err != errInterrupted {
			return err
		}
		// To finish what somebody left takes a writer.
		w, err := f.node.openFile(true)
		if err != nil {
			return err
		}
		err = w.beginWrite()
		if err == nil {
			w.endWrite()
		}
		w.release()
		if err != nil {
			return err
		}
	}
}

func (f *file) joinReaders() error {
	s := f.shared
	s.gate.RLock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers > 0 && time.Since(s.since) > longRead {
		// Others may have waited all the while: the readers leave first.
		s.mu.Unlock()
		s.gate.RUnlock()
		s.gate.Lock()
		//lint:ignore SA2001 an empty section waits for those who are inside
		s.gate.Unlock()
		s.gate.RLock()
		s.mu.Lock()
	}
	if s.readers == 0 {
		err := ofdLock(f.desc.fd, unix.F_RDLCK, contentLock, 1, true)
		if err == nil {
			if err = f.revalidate(); err != nil {
				_ = ofdLock(f.desc.fd, unix.F_UNLCK, contentLock, 1, false)
			}
		}
		if err != nil {
			s.gate.RUnlock()
			return err
		}
		s.since = time.Now()
	}
	s.readers++
	return nil
}

func (f *file) endRead() {
	s := f.shared
	if s == nil {
		return
	}
	s.mu.Lock()
	if s.readers--; s.readers == 0 {
		_ = ofdLock(f.desc.fd, unix.F_UNLCK, contentLock, 1, false)
	}
	s.mu.Unlock()
	s.gate.RUnlock()
}

// refresh makes f.rec what the file says now. Errors leave it as it is.
func (f *file) refresh() error {
	if err := f.beginRead(); err != nil {
		return err
	}
	f.endRead()
	return nil
}

// revalidate rereads the record; errInterrupted where whoever changed the file last
// did not come to the end. The caller has the content lock, and is the only one of
// this mount that has it.
func (f *file) revalidate() error {
	v := f.node.vol
	var header [crypto.HeaderSize]byte
	got, err := preadFull(v.backing, f.desc.fd, header[:], 0)
	if err != nil {
		return err
	}
	var st unix.Statx_t
	if err := v.backing.Statx(f.desc.fd, "", &st); err != nil {
		return err
	}
	if id, err := crypto.HeaderFileID(header[:got]); err != nil || id != f.id {
		return f.node.integrity(-1, errors.New("its header is not what it was"))
	}
	if _, err := crypto.PlainSize(int64(st.Size)); err != nil {
		return errInterrupted
	}
	rec, err := f.records.Open(header[:])
	if err != nil {
		return f.node.integrity(-1, err)
	}
	if rec == f.rec {
		return f.checkSize(int64(st.Size))
	}
	f.content.Lock()
	defer f.content.Unlock()
	f.rec, f.mtime = rec, nil
	f.tags.clear()
	return f.checkSize(int64(st.Size))
}
