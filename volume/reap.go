package volume

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// reapTicket is the right to remove a sidecar: its file's last name is gone, the
// record had verified, the binding named this file, and it was never linked.
// Whatever does not earn a ticket is left to fsck, which looks for other users.
type reapTicket struct {
	id  crypto.ID
	dir *Node // that the name was in; nil if there was none
}

// reaper removes sidecars of unlinked files, once the removal of the name is
// durable: else a power cut could bring back the file without its key. From then
// on nobody can decrypt what is left of the file's content anywhere.
type reaper struct {
	settle func() error // makes earlier removals durable
	// copied tells which files a sync tool left copies of.
	copied func([]reapTicket) map[crypto.ID]bool
	remove func(crypto.ID) error
	failed func(crypto.ID, error)

	mu    sync.Mutex
	queue []reapTicket
	timer *time.Timer
	done  bool
}

const (
	reapAfter = 10 * time.Second
	reapBatch = 1 << 16
)

func (r *reaper) add(t reapTicket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return // left to fsck
	}
	r.queue = append(r.queue, t)
	if r.timer == nil {
		r.timer = time.AfterFunc(reapAfter, r.flush)
	} else if len(r.queue) == reapBatch {
		r.timer.Reset(0)
	}
}

// flush removes what is queued.
func (r *reaper) flush() {
	r.mu.Lock()
	queue := r.queue
	r.queue, r.timer = nil, nil
	r.mu.Unlock()
	if len(queue) == 0 {
		return
	}
	if err := r.settle(); err != nil {
		r.failed(queue[0].id, err)
		return
	}
	copied := r.copied(queue)
	for _, t := range queue {
		if copied[t.id] {
			continue
		}
		if err := r.remove(t.id); err != nil {
			r.failed(t.id, err)
		}
	}
}

// close removes what is queued and takes nothing more.
func (r *reaper) close() {
	r.mu.Lock()
	r.done = true
	if r.timer != nil {
		r.timer.Stop()
	}
	r.mu.Unlock()
	r.flush()
}

// copiesOf tells which files of tickets have a copy beside the place where they
// were: what a sync tool makes of two versions of a file has its file ID, and a
// name that does not decrypt. It needs the key until fsck has adopted it. Where
// that cannot be told, there is one.
func (v *Volume) copiesOf(tickets []reapTicket) map[crypto.ID]bool {
	copied := make(map[crypto.ID]bool)
	dirs := make(map[*Node][]crypto.ID)
	var order []*Node // that of the removals, in which one leads to the next
	for _, t := range tickets {
		if t.dir == nil {
			continue
		}
		if dirs[t.dir] == nil {
			order = append(order, t.dir)
		}
		dirs[t.dir] = append(dirs[t.dir], t.id)
	}
	for _, dir := range order {
		ids := dirs[dir]
		found, err := v.strangers(dir)
		for _, id := range ids {
			if err != nil || found[id] {
				copied[id] = true
				v.log.Warn("a removed file's sidecar stays: a copy of the file seems to lie beside it", "sidecar", sidecarPath(id), "error", err)
			}
		}
	}
	return copied
}

// strangers are the file IDs of entries of a directory whose names do not
// decrypt; of all entries where there are no keys. A directory that is gone has
// none.
func (v *Volume) strangers(dir *Node) (map[crypto.ID]bool, error) {
	known := func(*descriptor, string) bool { return false }
	if v.begin(ordinary) == nil {
		defer v.end()
		id, err := dir.dirID()
		if err == nil {
			known = func(d *descriptor, name string) bool {
				_, err := v.decode(id, d.fd, name)
				return err == nil
			}
		}
	}
	d, err := dir.use()
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.release()
	entries, err := dir.listInside(d)
	if err != nil {
		return nil, err
	}
	found := make(map[crypto.ID]bool)
	for _, e := range entries {
		if dir.isOwn(e.name) || e.kind != unix.S_IFREG && e.kind != 0 || known(d, e.name) {
			continue
		}
		b, err := v.readHead(d.fd, e.name)
		if err != nil {
			return nil, err
		}
		if id, err := crypto.HeaderFileID(b); err == nil {
			found[id] = true
		}
	}
	return found, nil
}

// readHead reads as much of a file as has its ID; less of what is shorter, or
// no file.
func (v *Volume) readHead(dirfd int, name string) ([]byte, error) {
	fd, err := openPlain(v.backing, dirfd, name, unix.O_RDONLY)
	if err == unix.ENOENT || errors.Is(err, errNotPlain) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer v.backing.Close(fd)
	b := make([]byte, crypto.RecordOffset)
	n, err := preadFull(v.backing, fd, b, 0)
	return b[:max(0, n)], err
}
