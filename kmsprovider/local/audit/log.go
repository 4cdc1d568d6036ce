package audit

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

var (
	// ErrForeign: the log was written under another key: another keystore's.
	ErrForeign = errors.New("the log is another keystore's")
	// ErrTampered: lines were changed, removed or added.
	ErrTampered = errors.New("the log is not what was written")
)

// syncEvery is after how many events at the latest the log is synced.
const syncEvery = 1024

// Options of a log.
type Options struct {
	// OwnerOf is a file whose owner the log's files get where root makes them;
	// "" for the process's own.
	OwnerOf string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Log is an open log. It is safe for concurrent use, also of the same files by
// other processes.
type Log struct {
	path string
	o    Options
	key  *crypto.Key
	boot [16]byte

	mu   sync.Mutex // flock does not keep out goroutines that share a file
	log  *file      // nil when closed
	head *file
}

// Open opens the log at path under a key, of which it keeps a copy. What is
// missing is made, except directories. Nothing is read before the first Append.
func Open(path string, key *crypto.Key, o Options) (*Log, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Log{path: path, o: o, key: key.Clone()}
	var err error
	if l.boot, err = bootID(); err == nil {
		err = l.openFiles()
	}
	if err != nil {
		l.key.Wipe()
		return nil, fmt.Errorf("open audit log %s: %w", path, err)
	}
	return l, nil
}

func (l *Log) openFiles() error {
	head, madeHead, err := open(l.path+headSuffix, l.o.OwnerOf)
	if err != nil {
		return err
	}
	log, madeLog, err := open(l.path, l.o.OwnerOf)
	if err != nil {
		head.Close()
		return err
	}
	l.head, l.log = head, log
	if madeHead || madeLog {
		return syncDir(l.path)
	}
	return nil
}

// Close closes the files and wipes the key. Later appends fail with
// os.ErrClosed; a second Close does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		return nil
	}
	err := errors.Join(l.log.Close(), l.head.Close())
	l.log, l.head = nil, nil
	l.key.Wipe()
	return err
}

// Path is the log's file.
func (l *Log) Path() string { return l.path }

// Append writes e. If it fails, the call that e is about must fail too.
func (l *Log) Append(e Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		return fmt.Errorf("append to audit log %s: %w", l.path, os.ErrClosed)
	}
	if err := l.append(e); err != nil {
		return fmt.Errorf("append to audit log %s: %w", l.path, err)
	}
	return nil
}

func (l *Log) append(e Event) error {
	size, err := l.enter()
	if err != nil {
		return err
	}
	defer func() { unlock(l.head.File) }()
	h, ok, err := readHead(l.head.File, l.key)
	if err != nil {
		return err
	}
	if !ok || h.boot != l.boot || size != h.tip.end {
		if h, err = l.recover(h, ok, size); err != nil {
			return err
		}
	}
	_, err = l.write(h, e)
	return err
}

// enter takes the lock and returns the log's size. Files that were replaced
// meanwhile are opened again.
func (l *Log) enter() (size int64, err error) {
	for range 10 {
		if err := lock(l.head.File, unix.LOCK_EX); err != nil {
			return 0, err
		}
		headSame, _, err := l.head.still(l.path + headSuffix)
		if err == nil && headSame {
			var logSame bool
			logSame, size, err = l.log.still(l.path)
			if err == nil && logSame {
				return size, nil
			}
		}
		unlock(l.head.File)
		if err != nil {
			return 0, err
		}
		oldLog, oldHead := l.log, l.head
		if err := l.openFiles(); err != nil {
			return 0, err
		}
		oldLog.Close()
		oldHead.Close()
	}
	return 0, errors.New("its files are replaced all the time")
}

// write appends e after h's tip and moves the head. If it fails the log is as
// before, or as after a crash.
func (l *Log) write(h head, e Event) (head, error) {
	e.complete(l.o.Now())
	e.Sequence, e.PreviousMAC = h.tip.sequence+1, h.tip.mac.String()
	if r := e.ServiceEventDetails; r != nil && r.LostTo > h.tip.sequence {
		e.Sequence = r.LostTo + 1
	}
	line, m, err := encodeLine(l.key, e)
	if err != nil {
		return h, err
	}
	next := head{tip: point{e.Sequence, h.tip.end + int64(len(line)), m}, synced: h.synced, boot: l.boot}
	err = writeAll(l.log.File, line, h.tip.end)
	durable := !e.ReadOnly || e.Sequence-h.synced.sequence >= syncEvery
	if err == nil && durable {
		next.synced = next.tip
		err = datasync(l.log.File)
	}
	if err == nil {
		err = writeAll(l.head.File, next.encode(l.key), 0)
	}
	if err == nil && durable {
		err = datasync(l.head.File)
	}
	if err != nil {
		// The call fails, so its event must not stay.
		undone := l.log.Truncate(h.tip.end)
		if undone == nil {
			undone = writeAll(l.head.File, h.encode(l.key), 0)
		}
		return h, errors.Join(err, undone)
	}
	return next, nil
}

func writeAll(f *os.File, b []byte, at int64) error {
	_, err := f.WriteAt(b, at)
	return err
}
