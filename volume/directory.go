package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/crypto"
)

// directory is what a directory's record says, once it has been verified.
type directory struct {
	id crypto.ID
	at place // where it was verified to belong
}

// Names that kmsfs itself uses in the backing directory. They cannot collide
// with encrypted names, which have no dot.
const (
	metaDir    = ".kmsfs"      // in the root alone
	recordName = ".kmsfs.dir"  // a directory's record, in it
	tmpPrefix  = ".kmsfs.tmp." // something on its way to its place
)

// dirID returns the directory's ID, reading and authenticating its record the
// first time.
func (n *Node) dirID() (crypto.ID, error) {
	if n == n.vol.root {
		return n.vol.rootID, nil
	}
	n.mu.Lock()
	if n.dir != nil {
		id := n.dir.id
		n.mu.Unlock()
		return id, nil
	}
	n.mu.Unlock()
	if n.vol.shared == nil {
		return n.verifyDir()
	}
	var id crypto.ID
	err := n.vol.shared.patiently(n, func() (err error) {
		id, err = n.verifyDir()
		return err
	})
	return id, err
}

// verifyDir reads the directory's record, which must belong where it is.
func (n *Node) verifyDir() (crypto.ID, error) {
	rec, err := n.readRecord()
	if err != nil {
		return crypto.ID{}, err
	}
	p, err := n.checkDirBinding(rec)
	if err != nil {
		return crypto.ID{}, err
	}
	n.mu.Lock()
	n.dir = &directory{id: rec.ID, at: p}
	n.mu.Unlock()
	return rec.ID, nil
}

// readRecord reads the directory's record and authenticates it, also where it is
// in the parent, because a removal was interrupted.
func (n *Node) readRecord() (crypto.DirRecord, error) {
	if n.undecipherable.Load() && !n.vol.checking {
		return crypto.DirRecord{}, n.integrity(-1, errors.New("its name does not decrypt"))
	}
	d, err := n.use()
	if err != nil {
		return crypto.DirRecord{}, err
	}
	defer d.release()
	b, err := n.readInside(d, recordName, crypto.DirRecordSize)
	if err == unix.ENOENT {
		if aside, rerr := n.restoreRecord(d); aside != nil || rerr != nil {
			b, err = aside, rerr
		}
	}
	if err == unix.ENOENT || errors.Is(err, errNotPlain) || errors.Is(err, errTooLong) {
		return crypto.DirRecord{}, n.integrity(-1, fmt.Errorf("directory record %s: %w", recordName, err))
	}
	if err != nil {
		return crypto.DirRecord{}, fmt.Errorf("read directory record of %q: %w", n.Path(), err)
	}
	rec, err := n.vol.dirs.Open(b)
	if err != nil {
		return crypto.DirRecord{}, n.integrity(-1, fmt.Errorf("directory record %s: %w", recordName, err))
	}
	return rec, nil
}

// checkDirBinding makes sure that the directory is where its record says, and
// returns where that is.
func (n *Node) checkDirBinding(rec crypto.DirRecord) (place, error) {
	p, ok := n.at()
	if !ok {
		return p, unix.ENOENT
	}
	parent, err := p.parent.dirID()
	if err != nil {
		return p, err
	}
	b := n.vol.binder.Binding(parent, p.name)
	if b == rec.BindingA || b == rec.BindingB {
		return p, nil
	}
	err = n.integrity(-1, errors.New("it belongs under another name: the backing directory was moved or swapped"))
	if n.vol.accepts(err) {
		return p, nil
	}
	return p, err
}

// rewriteDirRecord changes the directory's record in place. It is smaller than
// a page, so it is old or new.
func (n *Node) rewriteDirRecord(mutate func(*crypto.DirRecord)) error {
	rec, err := n.readRecord()
	if err != nil {
		return err
	}
	mutate(&rec)
	d, err := n.use()
	if err != nil {
		return err
	}
	defer d.release()
	k := n.vol.backing
	fd, err := n.openInside(d, recordName, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer k.Close(fd)
	var b [crypto.DirRecordSize]byte
	if err := n.vol.dirs.Seal(b[:], n.vol.random, rec); err != nil {
		return err
	}
	if n.vol.isShared(fd) {
		err = n.vol.replaceRecord(d.fd, rec.ID, b[:])
	} else {
		_, err = pwriteFull(k, fd, b[:], 0)
	}
	if err != nil {
		return fmt.Errorf("write directory record of %q: %w", n.Path(), err)
	}
	n.vol.debts.owe(recordDebt(rec.ID), n)
	return nil
}

// bindings is the pair of slots of a file's or directory's record.
type bindings struct{ a, b *[16]byte }

// add puts a new binding into the slot that does not hold the current one.
func (s bindings) add(current, next [16]byte) {
	switch {
	case *s.a == next || *s.b == next:
	case *s.a == current:
		*s.b = next
	default:
		*s.a = next
	}
}

// settle leaves only the binding that holds from now on.
func (s bindings) settle(current [16]byte) {
	*s.a, *s.b = current, [16]byte{}
}

func dirBindings(r *crypto.DirRecord) bindings { return bindings{&r.BindingA, &r.BindingB} }
func fileBindings(r *crypto.Record) bindings   { return bindings{&r.BindingA, &r.BindingB} }

// restoreRecord finds a directory's record that an interrupted removal had moved
// to the parent, and puts it back, if the store lets it. Only a record that is bound
// to this very place is taken; nil if there is none. An error says that it could not
// be looked for.
func (n *Node) restoreRecord(d *descriptor) (record []byte, err error) {
	p, ok := n.at()
	if !ok {
		return nil, nil
	}
	parentID, err := p.parent.dirID()
	if errors.Is(err, ErrIntegrity) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	want := n.vol.binder.Binding(parentID, p.name)
	pd, err := p.parent.use()
	if err != nil {
		return nil, err
	}
	defer pd.release()
	entries, err := n.vol.listBacking(pd.fd)
	if err != nil {
		return nil, err
	}
	var unread error
	for _, e := range entries {
		if !isTemporary(e.name) {
			continue
		}
		b, err := readSmall(n.vol.backing, pd.fd, e.name, crypto.DirRecordSize)
		if isStoreError(err) {
			unread = err
		}
		if err != nil {
			continue
		}
		rec, err := n.vol.dirs.Open(b)
		if err != nil || (rec.BindingA != want && rec.BindingB != want) {
			continue
		}
		if !n.vol.readOnly && n.vol.shared == nil && n.vol.renameNew(pd.fd, e.name, d.fd, recordName, 0) == nil {
			n.vol.log.Info("put back a directory record that an interrupted removal had set aside", "path", n.Path())
			n.vol.debts.owe(recordDebt(rec.ID), n)
		}
		return b, nil
	}
	return nil, unread
}
